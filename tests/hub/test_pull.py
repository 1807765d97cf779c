"""Snapshots from the Hub, and from the cache when the Hub cannot be used."""

import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.hub.client import Client
from tests.hub.repos import NEEDED, POINTER, REPO, WEIGHTS, files_of, pulled_files, write_snapshot
from tests.hub.server import Files, LocalHub

MISSING_COMMIT = "0123456789" * 4


class MarkerWriter:
    """An object whose unpickling leaves a file behind."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.marker),)  # type: ignore[return-value]


def test_first_pull_brings_the_same_bytes_at_the_commit(client: Client, commit: str, files: Files, cache: Path) -> None:
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["repo_id"], answer["revision"], answer["warnings"]) == (REPO, commit, [])
    assert {name: (Path(answer["path"]) / name).read_bytes() for name in NEEDED} == {n: files[n] for n in NEEDED}
    assert pulled_files(Path(answer["path"])) == NEEDED
    assert any("File 1 of 6" in line for line in answer["log"])
    assert not answer["torch"], "the Hub's part needs no torch"


def test_starts_from_the_cache_with_a_warning_when_the_hub_is_gone(
    client: Client, cut_off: Client, commit: str, cache: Path
) -> None:
    first = client.open(REPO, cache_dir=cache)
    answer = cut_off.open(REPO, cache_dir=cache)
    assert (answer["path"], answer["revision"]) == (first["path"], commit)
    assert "cannot be reached" in answer["warnings"][0]
    assert commit in answer["warnings"][0]
    assert answer["warnings"][0] in answer["log"]


def test_pinned_commit_asks_nothing_the_second_time(
    client: Client, cut_off: Client, hub: LocalHub, commit: str, cache: Path
) -> None:
    client.open(REPO, commit, cache_dir=cache)
    hub.requests.clear()
    for other in (client, cut_off):
        answer = other.open(REPO, commit, cache_dir=cache)
        assert (answer["revision"], answer["warnings"]) == (commit, [])
    assert hub.requests == []


def test_unchanged_branch_costs_one_request(client: Client, hub: LocalHub, commit: str, cache: Path) -> None:
    client.open(REPO, cache_dir=cache)
    hub.requests.clear()
    assert client.open(REPO, cache_dir=cache)["revision"] == commit
    assert [(request.method, request.sent) for request in hub.requests] == [("HEAD", 0)]


def test_follows_a_branch_that_moved_and_keeps_what_did_not_change(
    client: Client, hub: LocalHub, files: Files, commit: str, cache: Path, tmp_path: Path
) -> None:
    client.open(REPO, "main", cache_dir=cache)
    write_snapshot(tmp_path / "next", version="1.1.0")
    moved = hub.commit(REPO, files_of(tmp_path / "next"))
    hub.requests.clear()
    answer = client.open(REPO, "main", cache_dir=cache)
    assert answer["revision"] == moved != commit
    assert hub.asked("GET", "/config.json")
    assert not hub.asked("GET", ".safetensors"), "the same weights are in the cache already"


def test_tag_is_a_revision(client: Client, hub: LocalHub, commit: str, files: Files, cache: Path) -> None:
    hub.repos[REPO].tags["v1.0.0"] = commit
    hub.commit(REPO, {**files, "README.md": b"a later card"})
    assert client.open(REPO, "v1.0.0", cache_dir=cache)["revision"] == commit


@pytest.mark.parametrize("revision", [None, "main"])
def test_missing_repo_is_named(client: Client, hub: LocalHub, cache: Path, revision: str | None) -> None:
    answer = client.open("org/nowhere", revision, cache_dir=cache)
    assert (answer["error"], answer["cause"]) == ("DownloadError", "RepositoryNotFoundError")
    assert "org/nowhere at " in answer["message"]
    assert "no such repo, or it is private" in answer["message"]
    assert "HF_TOKEN" in answer["hint"]
    assert "\n" not in answer["message"] + answer["hint"]


@pytest.mark.parametrize("revision", ["v9", MISSING_COMMIT])
def test_missing_revision_is_named(client: Client, commit: str, cache: Path, revision: str) -> None:
    answer = client.open(REPO, revision, cache_dir=cache)
    assert (answer["error"], answer["code"]) == ("DownloadError", "download_failed")
    assert f"{REPO} at revision {revision}" in answer["message"]
    assert "no such revision" in answer["message"]
    assert "Nothing of it is cached" in answer["hint"]


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_gated_repo_says_to_accept_its_terms(
    client: Client, hub: LocalHub, commit: str, cache: Path, token: str | None
) -> None:
    hub.repos[REPO].is_gated = True
    answer = client.open(REPO, cache_dir=cache, token=token)
    assert (answer["error"], answer["cause"]) == ("DownloadError", "GatedRepoError")
    assert "gated" in answer["message"]
    assert f"https://huggingface.co/{REPO}" in answer["hint"]


def test_private_repo_opens_with_a_token_that_is_never_shown(
    client: Client, hub: LocalHub, commit: str, cache: Path
) -> None:
    hub.repos[REPO].is_private = True
    answer = client.open(REPO, cache_dir=cache, token="hf_right")
    assert answer["revision"] == commit
    assert "hf_right" not in json.dumps(answer)


def test_repo_turned_private_starts_from_the_cache(client: Client, hub: LocalHub, commit: str, cache: Path) -> None:
    client.open(REPO, cache_dir=cache)
    hub.repos[REPO].is_private = True
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert "or it is private" in answer["warnings"][0]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "token"), (403, "refuses access"), (404, "no such repo"), (500, "HTTP 500")]
)
def test_every_refusal_has_its_words_and_spares_the_cached(
    client: Client, hub: LocalHub, commit: str, cache: Path, status: int, said: str
) -> None:
    hub.status = status
    empty = client.open(REPO, cache_dir=cache)
    assert empty["error"] == "DownloadError"
    assert said in empty["message"]
    hub.status = None
    client.open(REPO, cache_dir=cache)
    hub.status = status
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert said in answer["warnings"][0]


def test_hanging_hub_is_given_up_soon(client: Client, hub: LocalHub, commit: str, cache: Path) -> None:
    client.open(REPO, cache_dir=cache)
    hub.hangs = True
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert "in time" in answer["warnings"][0]
    empty = client.open("org/other", cache_dir=cache)
    assert (empty["error"], "in time" in empty["message"]) == ("DownloadError", True)
    assert max(answer["seconds"], empty["seconds"]) < 10


def test_unreachable_hub_and_nothing_cached(cut_off: Client, cache: Path) -> None:
    answer = cut_off.open(REPO, "v1", cache_dir=cache)
    assert answer["error"] == "DownloadError"
    assert f"{REPO} at revision v1" in answer["message"]
    assert "network" in answer["hint"]
    assert str(cache) in answer["hint"]


def test_wrong_bytes_are_fetched_again_once_then_refused(
    client: Client, hub: LocalHub, commit: str, files: Files, cache: Path
) -> None:
    hub.false_bytes[WEIGHTS] = bytes(len(files[WEIGHTS]))
    answer = client.open(REPO, cache_dir=cache)
    assert answer["error"] == "SnapshotError"
    assert WEIGHTS in answer["message"]
    assert len(hub.asked("GET", WEIGHTS)) == 2
    pinned = client.open(REPO, commit, cache_dir=cache)
    assert pinned["error"] == "SnapshotError"
    hub.false_bytes.clear()
    assert client.open(REPO, cache_dir=cache)["revision"] == commit, "mended as soon as the Hub is"


@pytest.mark.parametrize("damage", [POINTER, b"", None], ids=["pointer", "empty", "half"])
@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_damage_in_the_cache_is_named_and_mended_online(
    client: Client,
    cut_off: Client,
    hub: LocalHub,
    commit: str,
    files: Files,
    cache: Path,
    damage: bytes | None,
    name: str,
) -> None:
    path = Path(client.open(REPO, cache_dir=cache)["path"]) / name
    path.write_bytes(files[name][: len(files[name]) // 2] if damage is None else damage)
    refused = cut_off.open(REPO, cache_dir=cache)
    assert refused["error"] == "DownloadError"
    assert name in refused["message"]
    hub.requests.clear()
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert any(name in line and "again" in line for line in answer["log"])
    assert path.read_bytes() == files[name]
    assert len(hub.asked("GET", "")) == 1


def test_pointer_text_in_the_repo_is_refused(client: Client, hub: LocalHub, files: Files, cache: Path) -> None:
    hub.commit(REPO, {**files, WEIGHTS: POINTER})
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["error"], WEIGHTS in answer["message"]) == ("SnapshotError", True)


def test_download_cut_half_way_goes_on_where_it_stopped(
    client: Client, hub: LocalHub, cache: Path, tmp_path: Path
) -> None:
    # huggingface_hub writes in pieces of 10 MiB and resumes after the last whole one.
    write_snapshot(tmp_path / "large", values=6_000_000)
    files = files_of(tmp_path / "large")
    commit = hub.commit(REPO, files)
    hub.cut_once[WEIGHTS] = 15_000_000
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    first, second = hub.asked("GET", WEIGHTS)
    assert (first.range, second.range) == (None, f"bytes={10 * 2**20}-")
    assert first.sent + second.sent < 1.25 * len(files[WEIGHTS])
    assert (Path(answer["path"]) / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_stray_incomplete_blob_is_ignored(client: Client, commit: str, cache: Path) -> None:
    path = Path(client.open(REPO, cache_dir=cache)["path"])
    blob = (path / WEIGHTS).resolve()
    (path / WEIGHTS).unlink()
    blob.rename(blob.with_name(blob.name + ".1234abcd.incomplete"))
    assert client.open(REPO, cache_dir=cache)["revision"] == commit


def test_pickles_beside_the_weights_are_never_fetched(
    client: Client, hub: LocalHub, files: Files, cache: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "unpickled"
    evil = pickle.dumps(MarkerWriter(marker))
    names = ["pytorch_model.bin", "convnext_tiny/pytorch_model.bin", "model.pkl", "model.ckpt", "model.py"]
    hub.commit(REPO, {**files, **dict.fromkeys(names, evil)})
    answer = client.open(REPO, cache_dir=cache)
    assert pulled_files(Path(answer["path"])) == NEEDED
    assert not any(request.path.endswith(name) for request in hub.requests for name in names)
    assert not marker.exists()
    pickle.loads(evil)
    assert marker.exists(), "the trap itself works"


@pytest.mark.parametrize("name", ["weights.bin", "a/model.pkl", "model.safetensors.py", "*.json", "a b.json"])
def test_config_that_names_another_kind_of_file_is_refused(
    client: Client, hub: LocalHub, files: Files, cache: Path, name: str
) -> None:
    config = json.loads(files["config.json"])
    config["files"][name] = {"size": 1, "sha256": "0" * 64}
    hub.commit(REPO, {**files, name: b"x", "config.json": json.dumps(config).encode()})
    answer = client.open(REPO, cache_dir=cache)
    assert answer["error"] == "SnapshotError"
    assert name in answer["message"]
    assert not hub.asked("GET", name)


def test_repo_that_is_no_snapshot(client: Client, hub: LocalHub, cache: Path) -> None:
    hub.commit(REPO, {"README.md": b"# hello"})
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["error"], "lacks config.json" in answer["message"]) == ("SnapshotError", True)


def test_copied_cache_without_refs_starts_offline_by_full_commit_id_alone(
    client: Client, offline: Client, commit: str, cache: Path
) -> None:
    client.open(REPO, cache_dir=cache)
    shutil.rmtree(cache / "models--org--pneumonet" / "refs")
    answer = offline.open(REPO, commit, cache_dir=cache)
    assert (answer["revision"], answer["warnings"]) == (commit, [])
    for revision in (None, commit[:7]):
        missed = offline.open(REPO, revision, cache_dir=cache)
        assert missed["error"] == "DownloadError"
        assert REPO in missed["message"]
        assert (revision or "default branch") in missed["message"]
        assert "HF_HUB_OFFLINE is set" in missed["message"]
        assert "full 40-character ids" in missed["hint"]
        assert commit in missed["hint"]
