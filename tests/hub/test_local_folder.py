"""Snapshots from a folder, and values that name neither a folder nor a repo."""

from pathlib import Path

import pytest

from tests.hub.client import Client
from tests.hub.repos import POINTER, WEIGHTS
from tests.hub.server import LocalHub


def test_local_folder(client: Client, folder: Path, hub: LocalHub) -> None:
    answer = client.open(str(folder))
    own = f"local-{answer['config']}"
    assert (answer["path"], answer["repo_id"], answer["revision"]) == (str(folder), None, own)
    assert client.open(str(folder), own)["revision"] == own
    assert client.open(str(folder), "v1.0.0")["revision"] == own
    assert client.open(str(folder), "main")["error"] == "ConfigError"
    (folder / WEIGHTS).write_bytes(POINTER)
    damaged = client.open(str(folder))
    assert (damaged["error"], WEIGHTS in damaged["message"]) == ("SnapshotError", True)
    assert hub.requests == []


@pytest.mark.parametrize(
    "model",
    ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all", "a/b/c", "C:\\models\\x", Path("./models/missing"), Path("a")],
)
def test_missing_folder(client: Client, hub: LocalHub, model: str | Path) -> None:
    answer = client.open(model)
    assert answer["error"] == "SnapshotError"
    assert repr(str(Path(model).expanduser())) in answer["message"]
    assert answer["hint"]
    assert hub.requests == []


def test_path_is_a_folder(client: Client, folder: Path) -> None:
    assert client.open(folder)["revision"] == client.open(str(folder))["revision"]


@pytest.mark.parametrize("kind", [str, Path])
def test_file_where_a_folder_is_expected(client: Client, folder: Path, kind: type[str] | type[Path]) -> None:
    answer = client.open(kind(folder / "config.json"))
    assert answer["error"] == "ConfigError"
    assert "Expected a snapshot folder, got the file" in answer["message"]
    assert "config.json" in answer["message"]


@pytest.mark.parametrize("model", ["README.md", "scripts/publish.py"])
def test_file_that_could_be_a_repo_by_its_name(client: Client, hub: LocalHub, model: str) -> None:
    answer = client.open(model)
    assert (answer["error"], model in answer["message"]) == ("ConfigError", True)
    assert "got the file" in answer["message"]
    assert hub.requests == []


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("model", ["~nosuchuser/x", "x" * 5000, "./" + "x" * 5000, "x/" * 2500, "org/" + "x" * 5000])
def test_what_no_folder_can_be_called(client: Client, hub: LocalHub, model: str, kind: type[str] | type[Path]) -> None:
    answer = client.open(kind(model))
    assert answer["error"] == "ConfigError"
    assert model[2:8] in answer["message"]
    assert len(answer["message"]) < 400
    assert "\n" not in answer["message"]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("model", "revision"),
    [("model_kard", None), ("org/na--me", None), ("org/", None), ("org/name", "../../x"), ("org/name", "a b")],
)
def test_what_cannot_mean_anything(client: Client, hub: LocalHub, model: str, revision: str | None) -> None:
    assert client.open(model, revision)["error"] == "ConfigError"
    assert hub.requests == []
