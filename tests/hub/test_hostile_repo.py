"""A repo whose owner wants the disk full: what a snapshot may hold is known before a byte of it is pulled."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pneumonet.hub.repo import max_bytes
from pneumonet.snapshot import digest_of
from tests.hub.client import Client
from tests.hub.repos import NEEDED, REPO, WEIGHTS
from tests.hub.server import Files, LocalHub


def _with_config(files: Files, /, **changes: object) -> Files:
    return {**files, "config.json": json.dumps(json.loads(files["config.json"]) | changes).encode()}


@pytest.mark.parametrize("name", ["more.json", "more.safetensors"])
def test_config_that_names_more_files_than_are_loaded_is_refused(
    client: Client, hub: LocalHub, files: Files, cache: Path, name: str
) -> None:
    listed = json.loads(files["config.json"])["files"] | {name: {"size": 1, "sha256": "0" * 64}}
    hub.commit(REPO, _with_config({**files, name: b"x"}, files=listed))
    answer = client.open(REPO, cache_dir=cache)
    assert answer["error"] == "SnapshotError"
    assert name in answer["message"]
    assert not hub.asked("GET", name)
    assert not hub.asked("GET", WEIGHTS)


def test_files_by_the_thousand_cost_one_request_for_the_config(
    client: Client, hub: LocalHub, files: Files, cache: Path
) -> None:
    listed = json.loads(files["config.json"])["files"]
    listed |= {f"{i}.safetensors": {"size": 1, "sha256": "0" * 64} for i in range(5_000)}
    hub.commit(REPO, _with_config(files, files=listed))
    assert client.open(REPO, cache_dir=cache)["error"] == "SnapshotError"
    assert {request.path.rsplit("/", 1)[1] for request in hub.requests} == {"config.json"}


@pytest.mark.parametrize("name", ["weights.bin", "model.safetensors.py"])
def test_config_that_loads_another_kind_of_file_is_refused(
    client: Client, hub: LocalHub, files: Files, cache: Path, name: str
) -> None:
    config = json.loads(files["config.json"])
    admission = config["admission"] | {"presentation_file": name}
    listed = {name if n == "presentation.safetensors" else n: digest for n, digest in config["files"].items()}
    hub.commit(REPO, _with_config({**files, name: b"x"}, admission=admission, files=listed))
    answer = client.open(REPO, cache_dir=cache)
    assert answer["error"] == "SnapshotError"
    assert name in answer["message"]
    assert "pickle" in answer["hint"]
    assert not hub.asked("GET", name)


def test_a_crowd_of_members_is_refused(client: Client, hub: LocalHub, files: Files, cache: Path) -> None:
    config = json.loads(files["config.json"])
    members = [{**config["members"][0], "name": f"m{i}", "weight": 1 / 16} for i in range(16)]
    digest = config["files"][WEIGHTS]
    listed = {f"{m['name']}/{name}": digest for m in members for name in ("config.json", "model.safetensors")}
    listed |= {name: config["files"][name] for name in ("presentation.safetensors", "admission.safetensors")}
    hub.commit(REPO, _with_config(files, members=members, files=listed))
    answer = client.open(REPO, cache_dir=cache)
    assert (answer["error"], "members" in answer["message"]) == ("SnapshotError", True)
    assert not hub.asked("GET", ".safetensors")


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "convnext_tiny/config.json", "admission.safetensors"])
def test_a_file_that_is_too_large_is_not_fetched(
    client: Client, hub: LocalHub, commit: str, cache: Path, name: str
) -> None:
    hub.stated_sizes[name] = max_bytes(name) + 1
    answer = client.open(REPO, cache_dir=cache)
    assert answer["error"] == "SnapshotError"
    assert name in answer["message"]
    assert "MB" in answer["message"]
    assert not [request for request in hub.asked("GET", f"{commit}/{name}") if request.sent]
    hub.stated_sizes[name] = max_bytes(name)
    assert "more than" not in client.open(REPO, cache_dir=cache).get("message", "")


def test_a_file_that_became_too_large_leaves_the_commit_before(
    client: Client, hub: LocalHub, commit: str, files: Files, cache: Path
) -> None:
    client.open(REPO, cache_dir=cache)
    bad = hub.commit(REPO, {**files, WEIGHTS: b"other"})
    hub.stated_sizes[WEIGHTS] = max_bytes(WEIGHTS) + 1
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert bad in answer["warnings"][0]
    assert WEIGHTS in answer["warnings"][0]


@pytest.mark.parametrize("name", ["README.md", "metrics.json"])
def test_a_card_that_is_too_large_is_left_out(
    client: Client, hub: LocalHub, commit: str, cache: Path, name: str
) -> None:
    hub.stated_sizes[name] = max_bytes(name) + 1
    answer = client.open(REPO, cache_dir=cache)
    assert answer["revision"] == commit
    assert not (Path(answer["path"]) / name).exists()
    assert not hub.asked("GET", f"/{name}")
    assert any(name in line and "MB" in line for line in answer["log"])


def test_a_damaged_file_is_not_fetched_again_where_it_is_too_large(
    client: Client, hub: LocalHub, commit: str, cache: Path
) -> None:
    (Path(client.open(REPO, cache_dir=cache)["path"]) / WEIGHTS).write_bytes(b"damaged")
    hub.requests.clear()
    hub.stated_sizes[WEIGHTS] = max_bytes(WEIGHTS) + 1
    assert client.open(REPO, cache_dir=cache)["error"] == "SnapshotError"
    assert not hub.asked("GET", "")


def test_what_is_too_large_to_pull_is_not_published(client: Client, hub: LocalHub, folder: Path) -> None:
    path = folder / "convnext_tiny" / "config.json"
    path.write_text(path.read_text() + " " * max_bytes("config.json"))
    config = json.loads((folder / "config.json").read_text())
    config["files"]["convnext_tiny/config.json"] = asdict(digest_of(path))
    (folder / "config.json").write_text(json.dumps(config))
    answer = client.call("publish", folder, REPO)
    assert (answer["error"], "convnext_tiny/config.json" in answer["message"]) == ("ConfigError", True)
    assert hub.requests == []


def test_members_that_contradict_the_snapshot_are_neither_pulled_nor_published(
    client: Client, hub: LocalHub, folder: Path, files: Files, cache: Path
) -> None:
    name = "convnext_tiny/config.json"
    member = json.loads(files[name])
    member["label_names"].reverse()
    (folder / name).write_text(json.dumps(member))
    listed = json.loads(files["config.json"])["files"] | {name: asdict(digest_of(folder / name))}
    spoilt = _with_config({**files, name: (folder / name).read_bytes()}, files=listed)
    (folder / "config.json").write_bytes(spoilt["config.json"])
    hub.commit(REPO, spoilt)
    for answer in (client.open(REPO, cache_dir=cache), client.open(folder)):
        assert (answer["error"], name in answer["message"]) == ("SnapshotError", True)
    refused = client.call("publish", folder, REPO)
    assert (refused["error"], name in refused["message"]) == ("ConfigError", True)


def test_what_is_published_is_what_is_pulled(client: Client, hub: LocalHub, folder: Path, cache: Path) -> None:
    client.call("publish", folder, REPO)
    answer = client.open(REPO, cache_dir=cache)
    pulled = {path.relative_to(answer["path"]).as_posix() for path in Path(answer["path"]).rglob("*") if path.is_file()}
    assert pulled == NEEDED
