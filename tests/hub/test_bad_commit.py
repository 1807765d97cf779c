"""A newest commit that lies does not stop a service that has a good one in its cache; without one, nothing starts."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.hub.client import Client
from tests.hub.repos import REPO, WEIGHTS, files_of, write_snapshot
from tests.hub.server import Files, LocalHub
from tests.support.snapshots import edit_config, poison, with_true_digest, write_tiny_snapshot

BAD: dict[str, tuple[Callable[[Files], object], str]] = {
    "wrong digest": (lambda f: f.update({WEIGHTS: bytes(len(f[WEIGHTS]))}), WEIGHTS),
    "file missing": (lambda f: f.pop("admission.safetensors"), "admission.safetensors"),
    "config missing": (lambda f: f.pop("config.json"), "config.json"),
    "config damaged": (lambda f: f.update({"config.json": b"{half"}), "config.json"),
    "classes swapped": (
        lambda f: f.update({"config.json": f["config.json"].replace(b'"NORMAL",', b'"ABNORMAL",', 1)}), "class_names",
    ),
}  # fmt: skip


def _next(tmp_path: Path, spoil: Callable[[Files], object]) -> Files:
    write_snapshot(tmp_path / "next", version="2.0.0", seed=2)
    files = files_of(tmp_path / "next")
    spoil(files)
    return files


@pytest.mark.parametrize("revision", [None, "main"])
@pytest.mark.parametrize("lie", BAD)
def test_the_verified_commit_before_is_used_with_a_warning(
    client: Client,
    cut_off: Client,
    hub: LocalHub,
    commit: str,
    cache: Path,
    tmp_path: Path,
    lie: str,
    revision: str | None,
) -> None:
    spoil, named = BAD[lie]
    client.open(REPO, revision, cache_dir=cache)
    bad = hub.commit(REPO, _next(tmp_path, spoil))
    for _ in range(2):
        answer = client.open(REPO, revision, cache_dir=cache)
        assert answer["revision"] == commit
        (warning,) = answer["warnings"]
        assert warning.startswith(f"Commit {bad} is not used: ")
        assert named in warning
        assert warning.endswith(f"; the verified commit {commit} is used instead.")
        assert warning in answer["log"]
    assert cut_off.open(REPO, revision, cache_dir=cache)["revision"] == commit, "nor is it what a start offline opens"


@pytest.mark.parametrize("lie", BAD)
def test_with_nothing_good_cached_the_first_error_is_raised(
    client: Client, hub: LocalHub, cache: Path, tmp_path: Path, lie: str
) -> None:
    spoil, named = BAD[lie]
    hub.commit(REPO, _next(tmp_path, spoil))
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["error"], named in answer["message"]) == ("SnapshotError", True)


@pytest.mark.parametrize("lie", BAD)
def test_a_pinned_commit_never_falls_back(
    client: Client, hub: LocalHub, commit: str, cache: Path, tmp_path: Path, lie: str
) -> None:
    spoil, named = BAD[lie]
    client.open(REPO, cache_dir=cache)
    bad = hub.commit(REPO, _next(tmp_path, spoil))
    answer = client.open(REPO, bad, cache_dir=cache)
    assert (answer["error"], named in answer["message"]) == ("SnapshotError", True)


def test_a_good_commit_of_another_branch_does_not_stand_in(
    client: Client, hub: LocalHub, files: Files, cache: Path, tmp_path: Path
) -> None:
    hub.commit(REPO, files, branch="trial")
    client.open(REPO, "trial", cache_dir=cache)
    hub.commit(REPO, _next(tmp_path, BAD["wrong digest"][0]))
    assert client.open(REPO, "main", cache_dir=cache)["error"] == "SnapshotError"


def test_a_damaged_cache_does_not_stand_in(
    client: Client, hub: LocalHub, commit: str, cache: Path, tmp_path: Path
) -> None:
    path = Path(client.open(REPO, cache_dir=cache)["path"])
    (path / "admission.safetensors").write_bytes(b"damaged")
    hub.commit(REPO, _next(tmp_path, BAD["wrong digest"][0]))
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["error"], WEIGHTS in answer["message"]) == ("SnapshotError", True)


def test_a_warning_is_short_whatever_the_repo_says(
    client: Client, hub: LocalHub, commit: str, cache: Path, tmp_path: Path
) -> None:
    client.open(REPO, cache_dir=cache)
    files = _next(tmp_path, lambda f: None)
    config = json.loads(files["config.json"])
    for spoilt in (
        {"class_names": ["x" * 10_000]},
        {"files": config["files"] | {"x" * 10_000: {"size": 1, "sha256": "0" * 64}}},
        {"files": {"x" * 10_000: "no digest"}},
        {"members": [{**m, "target_layer": "x" * 10_000} for m in config["members"]]},
    ):
        hub.commit(REPO, {**files, "config.json": json.dumps(config | spoilt).encode()})
        answer = client.open(REPO, cache_dir=cache)
        assert answer["revision"] == commit
        assert len(answer["warnings"][0]) < 600


# What only loading finds: the digests are right.
UNFIT: dict[str, tuple[Callable[[Path], object], str]] = {
    "not a number": (lambda f: poison(f, WEIGHTS, np.nan), WEIGHTS),
    "weights of another": (
        lambda f: (
            (f / WEIGHTS).write_bytes((f / "efficientnetv2_s" / "model.safetensors").read_bytes()),
            with_true_digest(f, WEIGHTS),
        ),
        "convnext_tiny",
    ),
    "admission not a number": (lambda f: poison(f, "admission.safetensors", np.nan), "admission.safetensors"),
    "threshold of nobody": (
        lambda f: edit_config(f, lambda c: c["admission"].update(max_distance={"resnet": 1.0})), "resnet",
    ),
}  # fmt: skip


@pytest.fixture
def repo(tmp_path: Path) -> str:
    """A repo of this test alone."""
    return f"org/{tmp_path.name}"


def _committed(hub: LocalHub, repo: str, folder: Path, spoil: Callable[[Path], object] = lambda _: None) -> str:
    write_tiny_snapshot(folder, version=folder.name)
    spoil(folder)
    return hub.commit(repo, files_of(folder))


@pytest.mark.parametrize("lie", UNFIT)
def test_weights_that_do_not_load_make_way_for_those_that_did(
    loader: Client, hub: LocalHub, repo: str, tmp_path: Path, lie: str
) -> None:
    spoil, named = UNFIT[lie]
    good = _committed(hub, repo, tmp_path / "1")
    assert (loader.load(repo)["revision"], loader.load(repo)["warnings"]) == (good, [])
    bad = _committed(hub, repo, tmp_path / "2", spoil)
    for _ in range(2):
        answer = loader.load(repo)
        assert answer["revision"] == good
        (warning,) = answer["warnings"]
        assert warning.startswith(f"Commit {bad} is not used: ")
        assert named in warning
        assert warning.endswith(f"; the verified commit {good} is used instead.")
        assert warning in answer["log"]
    pinned = loader.load(repo, bad)
    assert (pinned["error"], named in pinned["message"]) == ("SnapshotError", True)


def test_weights_that_were_pulled_but_never_loaded_do_not_take_the_good_ones_place(
    loader: Client, hub: LocalHub, repo: str, tmp_path: Path
) -> None:
    """`python -m pneumonet pull` and a batch verify digests alone; so does a process that is killed while it loads."""
    good = _committed(hub, repo, tmp_path / "1")
    loader.open(repo)
    for version in ("2", "3"):
        bad = _committed(hub, repo, tmp_path / version, UNFIT["not a number"][0])
        assert loader.open(repo)["revision"] == bad
    assert loader.load(repo)["revision"] == good


def test_the_newest_that_loaded_stands_in(loader: Client, hub: LocalHub, repo: str, tmp_path: Path) -> None:
    _committed(hub, repo, tmp_path / "1")
    loader.load(repo)
    _committed(hub, repo, tmp_path / "2", UNFIT["not a number"][0])
    loader.load(repo)
    second = _committed(hub, repo, tmp_path / "3")
    assert (loader.load(repo)["revision"], loader.load(repo)["warnings"]) == (second, [])
    _committed(hub, repo, tmp_path / "4", UNFIT["not a number"][0])
    assert loader.load(repo)["revision"] == second


def test_a_bad_download_after_weights_that_did_not_load(
    loader: Client, hub: LocalHub, repo: str, tmp_path: Path
) -> None:
    good = _committed(hub, repo, tmp_path / "1")
    loader.load(repo)
    unfit = _committed(hub, repo, tmp_path / "2", UNFIT["not a number"][0])
    loader.load(repo)
    lying = _committed(hub, repo, tmp_path / "3", lambda f: (f / WEIGHTS).write_bytes(b"x"))
    answer = loader.load(repo)
    assert answer["revision"] == good
    assert [lying in warning or unfit in warning for warning in answer["warnings"]] == [True, True]


def test_weights_that_do_not_load_make_way_also_where_the_hub_is_gone(
    loader: Client, hub: LocalHub, repo: str, tmp_path: Path
) -> None:
    good = _committed(hub, repo, tmp_path / "1")
    loader.load(repo)
    bad = _committed(hub, repo, tmp_path / "2", UNFIT["not a number"][0])
    loader.load(repo)
    hub.status = 500
    answer = loader.load(repo)
    assert answer["revision"] == good
    gone, unfit = answer["warnings"]
    assert "HTTP 500" in gone
    assert unfit.startswith(f"Commit {bad} is not used: ")


def test_weights_that_do_not_load_and_nothing_else_cached(
    loader: Client, hub: LocalHub, repo: str, tmp_path: Path
) -> None:
    _committed(hub, repo, tmp_path / "1", UNFIT["not a number"][0])
    for _ in range(2):
        answer = loader.load(repo)
        assert (answer["error"], WEIGHTS in answer["message"]) == ("SnapshotError", True)
    _committed(hub, repo, tmp_path / "2", UNFIT["admission not a number"][0])
    answer = loader.load(repo)
    assert (answer["error"], "admission.safetensors" in answer["message"]) == ("SnapshotError", True), "the first error"
