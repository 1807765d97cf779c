"""Publishing to a local Hub, and every folder that is refused."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from pneumonet.snapshot import digest_of
from tests.hub.client import ROOT, Client
from tests.hub.repos import CARD, REPO, WEIGHTS, files_of, write_snapshot
from tests.hub.server import LocalHub


def _rewrite(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _card(old: str, new: str) -> Callable[[Path], object]:
    return _rewrite("README.md", CARD.replace(old, new))


def test_published_snapshot_opens_as_the_same(client: Client, hub: LocalHub, folder: Path, cache: Path) -> None:
    (folder / "LICENSE").write_text("Apache-2.0")
    source = files_of(folder)
    for stray in ("notes.txt", "figures/raw.csv", ".cache"):
        (folder / stray).write_text("not part of the snapshot")
    commit = client.call("publish", folder, REPO, message="First weights")["result"]
    repo = hub.repos[REPO]
    assert repo.commits[commit] == source
    assert (repo.branches, repo.tags) == ({"main": commit}, {"v1.0.0": commit})
    assert len(hub.asked("POST", "/commit/main")) == 1
    for revision in (commit, "v1.0.0", None):
        answer = client.open(REPO, revision, cache_dir=cache)
        assert answer["revision"] == commit
        assert answer["config"] == client.open(str(folder))["config"]


def test_publishing_again_changes_nothing(client: Client, hub: LocalHub, folder: Path) -> None:
    commit = client.call("publish", folder, REPO)["result"]
    hub.requests.clear()
    assert client.call("publish", folder, REPO)["result"] == commit
    assert list(hub.repos[REPO].commits) == [commit]
    assert not hub.asked("PUT", "")


def test_tag_of_other_files_is_never_moved(client: Client, hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    commit = client.call("publish", folder, REPO)["result"]
    write_snapshot(tmp_path / "next", seed=2)
    hub.requests.clear()
    answer = client.call("publish", tmp_path / "next", REPO)
    assert answer["error"] == "ConfigError"
    assert "v1.0.0" in answer["message"]
    assert WEIGHTS in answer["message"]
    assert not hub.asked("PUT", ""), "found out before a byte was uploaded"
    other = client.call("publish", tmp_path / "next", REPO, tag="v1.0.1")["result"]
    assert hub.repos[REPO].tags == {"v1.0.0": commit, "v1.0.1": other}


def test_member_becomes_a_repo_that_timm_can_load(client: Client, hub: LocalHub, folder: Path) -> None:
    commit = client.call("publish_member", folder, REPO, "convnext_tiny")["result"]
    files = hub.repos[f"{REPO}-convnext_tiny"].commits[commit]
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert files["model.safetensors"] == (folder / WEIGHTS).read_bytes()
    card = files["README.md"].decode()
    assert "license: apache-2.0" in card
    assert f"hf-hub:{REPO}-convnext_tiny" in card
    assert client.call("publish_member", folder, REPO, "vgg")["error"] == "ConfigError"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_remove("README.md"), "README.md is missing"),
        (_rewrite("README.md", CARD.split("---")[2]), "no license in its front matter"),
        (_card("license: apache-2.0", "license: [unclosed"), "front matter cannot be read"),
        (_card("license: apache-2.0\n", ""), "no license"),
        (_card("library_name: timm\n", ""), "no library_name"),
        (_card("pipeline_tag: image-classification\n", ""), "no pipeline_tag"),
        (_card("pipeline_tag: image", "pipeline_tag: text"), "pipeline_tag 'text-classification'"),
        (_card("model-index", "index"), "no model-index"),
        (_card("# PneumoNet", "# PneumoNet\n\n[More Information Needed]"), "[More Information Needed]"),
        (_card("# PneumoNet", "# PneumoNet\n\nTODO"), "placeholders: TODO"),
        (_card("not a\nmedical device", "a toy"), "not a medical device"),
        (_remove("metrics.json"), "metrics.json is missing"),
        (_rewrite("metrics.json", "{"), "metrics.json is missing or is no JSON"),
        (_rewrite("metrics.json", '{"accuracy": 93}'), "accuracy 93"),
        (_rewrite("metrics.json", '{"accuracy": 0.9}'), "lacks 'auroc_macro'"),
        (_remove("config.json"), "no readable config.json"),
        (_rewrite("config.json", "{}"), "config.json cannot be understood"),
        (_rewrite("admission.safetensors", "x"), "admission.safetensors does not have the size"),
        (_remove(WEIGHTS), f"{WEIGHTS} is missing"),
        (_rewrite("convnext_tiny/pytorch_model.bin", "x"), "pytorch_model.bin may be a pickle"),
    ],
)
def test_incomplete_folder_is_refused(
    client: Client, hub: LocalHub, folder: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(folder)
    answer = client.call("publish", folder, REPO)
    assert answer["error"] == "ConfigError"
    assert said in answer["message"]
    assert hub.requests == []


def test_weights_that_are_no_safetensors_are_refused(client: Client, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / WEIGHTS).write_bytes(b"\x80\x04" + bytes(100))
    config["files"][WEIGHTS] = asdict(digest_of(folder / WEIGHTS))
    (folder / "config.json").write_text(json.dumps(config))
    assert f"{WEIGHTS} is no safetensors file" in client.call("publish", folder, REPO)["message"]


def test_all_problems_are_listed_at_once(client: Client, folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"x")
    (folder / "metrics.json").unlink()
    (folder / "README.md").write_text("TODO")
    message = client.call("publish", folder, REPO)["message"]
    for said in (WEIGHTS, "metrics.json", "license", "model-index", "TODO", "not a medical device"):
        assert said in message


def test_refusal_of_the_hub_is_one_sentence(client: Client, hub: LocalHub, folder: Path) -> None:
    hub.status = 403
    answer = client.call("publish", folder, REPO)
    assert answer["error"] == "DownloadError"
    assert f"{REPO} cannot be published: the Hub refuses access" in answer["message"]
    assert "HF_TOKEN" in answer["hint"]


def test_script_says_what_it_did_and_how_to_run_it(hub: LocalHub, folder: Path, tmp_path: Path) -> None:
    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"], "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        command = [sys.executable, str(ROOT / "scripts" / "publish.py"), str(folder), REPO, *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    dry = script("--dry-run")
    assert (dry.returncode, hub.requests) == (0, [])
    assert WEIGHTS in dry.stdout
    done = script("--tag", "v1", "--members")
    assert done.returncode == 0, done.stderr
    commit = hub.repos[REPO].tags["v1"]
    assert done.stdout.endswith(f"PNEUMONET_MODEL={REPO} PNEUMONET_REVISION={commit} make run\n")
    assert set(hub.repos) == {REPO, f"{REPO}-convnext_tiny", f"{REPO}-efficientnetv2_s"}
    (folder / "metrics.json").unlink()
    refused = script()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "metrics.json is missing" in refused.stderr
    assert "Traceback" not in refused.stderr
