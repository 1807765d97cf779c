"""Deploying the app as a Space of a local Hub, every clone that is refused, and the deployed app at work."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tests.hub.client import ROOT, Client
from tests.hub.repos import REPO, write_card_and_metrics, write_snapshot
from tests.hub.server import FIRST_FILES, Files, LocalHub, Repo, _Handler, _Refused
from tests.support.films import encoded, phantom

SPACE = "org/reading-room"
PROXIES = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7"}
README = """---
title: PneumoNet
sdk: gradio
sdk_version: 6.31.0
python_version: "3.11"
app_file: app.py
license: apache-2.0
short_description: Chest films
tags:
  - timm
colorFrom: red
---

# PneumoNet

Research use only. Not a
medical device.
"""
TREE: Files = {
    "LICENSE": b"Apache-2.0",
    "README.md": README.encode(),
    "app.py": b"print('app')\n",
    "requirements.txt": b"numpy==2\ngradio==6.31.0\n",
    "pneumonet/__init__.py": b"",
    "pneumonet/web/page.py": b"page = 1\n",
    "pneumonet/web/example.png": b"\x89PNG bytes",
    "tests/test_app.py": b"no part of a Space",
}


def _git(clone: Path, *arguments: str) -> None:
    own = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(clone), *own, *arguments], check=True, capture_output=True)


def _commit(clone: Path) -> None:
    _git(clone, "add", "--all")
    _git(clone, "commit", "-m", "one more")


@pytest.fixture(autouse=True)
def _files_of_spaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The local Hub hands out single files of Spaces too."""
    find = _Handler._repo

    def found(handler: _Handler, repo_id: str, kind: str = "models") -> Repo:
        name = repo_id.removeprefix("spaces/")
        return find(handler, name, kind if name == repo_id else "spaces")

    monkeypatch.setattr(_Handler, "_repo", found)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with all that a Space needs, committed, and what it does not."""
    folder = tmp_path / "clone"
    for name, data in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    _git(tmp_path, "init", str(folder))
    _commit(folder)
    return folder


def _metadata(readme: bytes) -> dict[str, object]:
    front: dict[str, object] = yaml.safe_load(readme.decode().split("---\n")[1])
    return front


def test_a_space_holds_the_app_and_serves_a_pinned_model(
    client: Client, hub: LocalHub, clone: Path, commit: str
) -> None:
    hub.repos[REPO].tags["v1"] = commit
    hub.commit(REPO, {"config.json": b"a later one"})
    answer = client.call("deploy_space", clone, SPACE, model=REPO, revision="v1")
    space = hub.spaces[SPACE]
    assert answer["commit"] == space.branches["main"], answer
    assert (answer["is_changed"], answer["model_commit"]) == (True, commit)
    assert space.variables == {"PNEUMONET_MODEL": REPO, "PNEUMONET_REVISION": commit, **PROXIES}
    files = dict(space.commits[answer["commit"]])
    readme = files.pop("README.md")
    kept = {name: data for name, data in TREE.items() if not name.startswith("tests/") and name != "README.md"}
    assert files == kept | {".gitattributes": FIRST_FILES[".gitattributes"]}
    assert _metadata(readme) == {
        "title": "PneumoNet", "sdk": "gradio", "sdk_version": "6.31.0", "python_version": "3.11", "app_file": "app.py",
        "license": "apache-2.0", "short_description": "Chest films", "tags": ["timm"], "models": [REPO],
        "pinned": False,
    }  # fmt: skip
    assert "Research use only. Not a medical device." in readme.decode()
    assert commit in readme.decode()
    assert len(hub.asked("POST", "/commit/main")) == 1


def test_deploying_again_changes_nothing(client: Client, hub: LocalHub, clone: Path, commit: str) -> None:
    first = client.call("deploy_space", clone, SPACE, model=REPO)
    hub.requests.clear()
    again = client.call("deploy_space", clone, SPACE, model=REPO)
    assert (again["commit"], again["is_changed"]) == (first["commit"], False)
    written = [request.path for request in hub.requests if request.method not in ("GET", "HEAD")]
    assert written == ["/api/repos/create"]
    (clone / "tests" / "test_app.py").write_text("no part of a Space, and changed")
    _commit(clone)
    assert not client.call("deploy_space", clone, SPACE, model=REPO)["is_changed"]


def test_what_left_the_clone_leaves_the_space(client: Client, hub: LocalHub, clone: Path, commit: str) -> None:
    client.call("deploy_space", clone, SPACE, model=REPO)
    hub.spaces[SPACE].variables |= {"OTHER": "stays", "FORWARDED_ALLOW_IPS": "10.9.8.7"}
    (clone / "pneumonet" / "web" / "page.py").rename(clone / "pneumonet" / "page.py")
    (clone / "app.py").write_text("print('better')\n")
    _commit(clone)
    answer = client.call("deploy_space", clone, SPACE, model=REPO)
    files = hub.spaces[SPACE].commits[answer["commit"]]
    assert answer["is_changed"]
    assert set(files) == {
        ".gitattributes", "LICENSE", "README.md", "app.py", "requirements.txt", "pneumonet/__init__.py",
        "pneumonet/page.py", "pneumonet/web/example.png",
    }  # fmt: skip
    assert files["app.py"] == b"print('better')\n"
    assert hub.spaces[SPACE].variables["OTHER"] == "stays"
    assert hub.spaces[SPACE].variables["FORWARDED_ALLOW_IPS"] == "10.9.8.7"


@pytest.mark.parametrize(
    ("header", "visitor"),
    [
        ("203.0.113.5", "203.0.113.5"),
        # What a visitor makes up stands before what the proxies have added.
        ("127.0.0.1, 203.0.113.5", "203.0.113.5"),
        ("198.51.100.7, 203.0.113.5, 10.16.0.9", "203.0.113.5"),
    ],
)
def test_behind_a_space_s_proxy_each_visitor_has_an_address_that_is_not_made_up(
    client: Client, hub: LocalHub, clone: Path, commit: str, header: str, visitor: str
) -> None:
    client.call("deploy_space", clone, SPACE, model=REPO)
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["client"][0])

    scope = {"type": "http", "client": ("10.16.3.80", 1), "headers": [(b"x-forwarded-for", header.encode())]}
    proxied: Any = ProxyHeadersMiddleware(app, hub.spaces[SPACE].variables["FORWARDED_ALLOW_IPS"])
    asyncio.run(proxied(scope, None, None))
    assert seen == [visitor]


SIGN_IN = {
    "hf_oauth": True, "hf_oauth_scopes": ["email"], "hf_oauth_expiration_minutes": 480,
    "hf_oauth_authorized_org": "org",
}  # fmt: skip


def test_signing_in_with_hugging_face_outlives_a_deployment(
    client: Client, hub: LocalHub, clone: Path, commit: str
) -> None:
    def readme() -> bytes:
        return hub.spaces[SPACE].commits[hub.spaces[SPACE].branches["main"]]["README.md"]

    client.call("deploy_space", clone, SPACE, model=REPO)
    # On the Hub's own page an operator edits the Space's README, not the clone's.
    told = readme().decode().replace("---\n", "---\n" + yaml.safe_dump(SIGN_IN), 1)
    hub.commit(SPACE, {"README.md": told.encode()}, kind="spaces")
    client.call("deploy_space", clone, SPACE, model=REPO)
    assert _metadata(readme()).items() >= SIGN_IN.items()
    assert not client.call("deploy_space", clone, SPACE, model=REPO)["is_changed"]
    _readme("colorFrom: red", "hf_oauth: true\nhf_oauth_expiration_minutes: 30")(clone)
    client.call("deploy_space", clone, SPACE, model=REPO)
    assert _metadata(readme()).items() >= (SIGN_IN | {"hf_oauth_expiration_minutes": 30}).items()


def test_a_model_that_moved_is_served_only_when_deployed_anew(
    client: Client, hub: LocalHub, clone: Path, commit: str
) -> None:
    client.call("deploy_space", clone, SPACE, model=REPO)
    later = hub.commit(REPO, {"config.json": b"a later one"})
    assert hub.spaces[SPACE].variables["PNEUMONET_REVISION"] == commit
    client.call("deploy_space", clone, SPACE, model=REPO)
    assert hub.spaces[SPACE].variables["PNEUMONET_REVISION"] == later


def test_without_a_model_repo_the_snapshot_goes_along(client: Client, hub: LocalHub, clone: Path, commit: str) -> None:
    client.call("deploy_space", clone, SPACE, model=REPO)
    write_snapshot(clone / "model_card")
    _commit(clone)
    answer = client.call("deploy_space", clone, SPACE)
    files = hub.spaces[SPACE].commits[answer["commit"]]
    weights = "model_card/convnext_tiny/model.safetensors"
    assert files[weights] == (clone / weights).read_bytes()
    assert "models" not in _metadata(files["README.md"])
    assert hub.spaces[SPACE].variables == PROXIES, "a pin would win over the snapshot"
    assert answer["model_commit"] is None


def test_a_new_space_is_private_where_asked(client: Client, hub: LocalHub, clone: Path, commit: str) -> None:
    client.call("deploy_space", clone, "org/closed", model=REPO, private=True, token="hf_right")
    client.call("deploy_space", clone, "org/open", model=REPO)
    assert (hub.spaces["org/closed"].is_private, hub.spaces["org/open"].is_private) == (True, False)


@pytest.mark.parametrize("readme", [{}, {"README.md": b"---\nsdk: gradio\n---\n\n# Mine\n"}])
def test_a_space_that_is_somebody_else_s_is_replaced_only_where_asked(
    client: Client, hub: LocalHub, clone: Path, commit: str, readme: Files
) -> None:
    theirs: Files = {"app.py": b"print('mine')\n", "notes.txt": b"only here", **readme}
    first = hub.commit(SPACE, theirs, kind="spaces")
    answer = client.call("deploy_space", clone, SPACE, model=REPO)
    assert (answer["error"], answer["code"]) == ("ConfigError", "bad_configuration")
    assert f"its {len(theirs)} files would be lost" in answer["message"]
    assert "--replace" in answer["hint"]
    assert (hub.spaces[SPACE].branches["main"], hub.spaces[SPACE].variables) == (first, {})
    assert client.call("deploy_space", clone, SPACE, model=REPO, replace=True)["is_changed"]
    assert "notes.txt" not in hub.spaces[SPACE].commits[hub.spaces[SPACE].branches["main"]]
    assert not client.call("deploy_space", clone, SPACE, model=REPO)["is_changed"]


@pytest.mark.parametrize("before", [{}, {"PNEUMONET_MODEL": "org/old", "PNEUMONET_REVISION": "0" * 40}])
@pytest.mark.parametrize("door", ["_commit", "_variables"])
def test_a_deployment_that_fails_half_way_leaves_the_model_and_can_be_done_again(
    client: Client, hub: LocalHub, clone: Path, commit: str, before: dict[str, str], door: str
) -> None:
    hub.commit(SPACE, {"README.md": b"Written by `scripts/deploy_space.py`"}, kind="spaces")
    hub.spaces[SPACE].variables = dict(before)

    def refuse(*_: object) -> int:
        raise _Refused(403)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Handler, door, refuse)
        answer = client.call("deploy_space", clone, SPACE, model=REPO)
    assert answer["message"] == f"The Space {SPACE} cannot be deployed: the Hub refuses access (HTTP 403)."
    assert hub.spaces[SPACE].variables == before
    client.call("deploy_space", clone, SPACE, model=REPO)
    assert hub.spaces[SPACE].variables == {"PNEUMONET_MODEL": REPO, "PNEUMONET_REVISION": commit, **PROXIES}


def test_a_private_model_is_told(client: Client, hub: LocalHub, clone: Path, commit: str) -> None:
    hub.repos[REPO].is_private = True
    answer = client.call("deploy_space", clone, SPACE, model=REPO, token="hf_right")
    assert any("secret HF_TOKEN" in line for line in answer["log"])


def _write(name: str, text: str) -> Callable[[Path], object]:
    def write(clone: Path) -> None:
        (clone / name).write_text(text)
        _commit(clone)

    return write


def _remove(name: str) -> Callable[[Path], object]:
    def remove(clone: Path) -> None:
        (clone / name).unlink()
        _commit(clone)

    return remove


def _readme(old: str, new: str) -> Callable[[Path], object]:
    assert old in README
    return _write("README.md", README.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda clone: (clone / "app.py").write_text("print('x')"), "app.py differs from what is committed"),
        (lambda clone: (clone / "pneumonet" / "new.py").write_text(""), "pneumonet/new.py differs from what is comm"),
        (lambda clone: (clone / "LICENSE").unlink(), "LICENSE is missing"),
        (lambda clone: shutil.rmtree(clone / ".git"), "is no git clone"),
        (_remove("app.py"), "app.py is missing"),
        (_remove("requirements.txt"), "requirements.txt is missing"),
        (_remove("README.md"), "README.md is missing"),
        (_write("README.md", "# PneumoNet\n"), "no front matter"),
        (_readme("title: PneumoNet\n", ""), "no title"),
        (_readme("license: apache-2.0\n", ""), "no license"),
        (_readme("sdk: gradio", "sdk: docker"), "sdk 'docker'"),
        (_readme("sdk_version: 6.31.0", "sdk_version: 6.30.0"), "sdk_version 6.30.0, requirements.txt gradio==6.31.0"),
        (_write("requirements.txt", "gradio>=6\n"), "requirements.txt no gradio of one version"),
        (_readme("app_file: app.py", "app_file: main.py"), "main.py as app_file"),
        (_readme("Not a\nmedical device", "A toy"), "not a medical device"),
    ],
)
def test_a_clone_that_is_not_fit_is_refused(
    client: Client, hub: LocalHub, clone: Path, spoil: Callable[[Path], object], said: str
) -> None:
    spoil(clone)
    answer = client.call("deploy_space", clone, SPACE, model=REPO)
    assert (answer["error"], answer["code"]) == ("ConfigError", "bad_configuration")
    assert said in answer["message"]
    assert hub.requests == []


def test_a_snapshot_that_is_not_fit_is_refused(client: Client, hub: LocalHub, clone: Path) -> None:
    assert "model_card is missing" in client.call("deploy_space", clone, SPACE)["message"]
    write_snapshot(clone / "model_card")
    (clone / "model_card" / "metrics.json").unlink()
    _commit(clone)
    assert "metrics.json is missing" in client.call("deploy_space", clone, SPACE)["message"]
    assert hub.requests == []


@pytest.mark.parametrize(
    ("model", "revision", "said"),
    [
        ("org/nothing", None, "the Hub has no such repo"),
        (REPO, "v9", "has no such revision"),
        ("org/empty", None, "holds no snapshot"),
        ("../etc", None, "org/name on the Hub"),
    ],
)
def test_a_model_that_cannot_be_pinned_leaves_the_space_as_it_is(
    client: Client, hub: LocalHub, clone: Path, commit: str, model: str, revision: str | None, said: str
) -> None:
    hub.commit("org/empty", {"README.md": b""})
    answer = client.call("deploy_space", clone, SPACE, model=model, revision=revision, token="hf_right")
    assert answer["error"] in ("ConfigError", "DownloadError")
    assert said in answer["message"]
    assert hub.spaces == {}


def test_refusal_of_the_hub_is_one_sentence(client: Client, hub: LocalHub, clone: Path) -> None:
    write_snapshot(clone / "model_card")
    _commit(clone)
    hub.status = 403
    answer = client.call("deploy_space", clone, SPACE)
    assert answer["error"] == "DownloadError"
    assert answer["message"] == f"The Space {SPACE} cannot be deployed: the Hub refuses access (HTTP 403)."
    assert "HF_TOKEN" in answer["hint"]


def test_the_deployed_app_serves_the_pinned_model(hub: LocalHub, tiny_snapshot: Path, tmp_path: Path) -> None:
    """This very tree, deployed by the script; its files and variables then start the app, as on a Space."""
    clone, space = tmp_path / "clone", tmp_path / "space"
    clone.mkdir()
    for name in ("LICENSE", "README.md", "app.py", "requirements.txt"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "pneumonet", clone / "pneumonet", ignore=shutil.ignore_patterns("__pycache__"))
    _git(tmp_path, "init", str(clone))
    _commit(clone)
    shutil.copytree(tiny_snapshot, tmp_path / "snapshot")
    write_card_and_metrics(tmp_path / "snapshot", "0.0.1")
    snapshot = {p.relative_to(tmp_path / "snapshot").as_posix(): p for p in (tmp_path / "snapshot").rglob("*")}
    commit = hub.commit(REPO, {name: path.read_bytes() for name, path in snapshot.items() if path.is_file()})
    own = {
        "PATH": os.environ["PATH"], "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1",
    }  # fmt: skip

    def script(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "scripts" / "deploy_space.py"), SPACE, "--root", str(clone), *arguments]
        return subprocess.run(command, env=own, cwd=tmp_path, capture_output=True, text=True, check=False)

    dry = script("--model", REPO, "--dry-run")
    assert (dry.returncode, hub.requests) == (0, []), dry.stderr
    assert "app.py" in dry.stdout
    done = script("--model", REPO)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"PNEUMONET_MODEL={REPO} PNEUMONET_REVISION={commit}\n")
    assert script("--revision", "v1").returncode == 2

    for name, data in hub.spaces[SPACE].commits[hub.spaces[SPACE].branches["main"]].items():
        (space / name).parent.mkdir(parents=True, exist_ok=True)
        (space / name).write_bytes(data)
    as_space = {"SPACE_ID": SPACE, "GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": "0"}
    variables = hub.spaces[SPACE].variables | as_space | {"GRADIO_ANALYTICS_ENABLED": "False"}
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=space, env=own | variables, stdout=said, stderr=said)
    try:
        deadline, health = time.monotonic() + 90, None
        while health is None or health.status_code != 200:
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.1)
            if found := re.search(r"PneumoNet is at (\S+)\n", (tmp_path / "said").read_text()):
                health = httpx.get(f"{found[1]}/health")
        model = health.json()["model"]
        assert (model["repo_id"], model["revision"]) == (REPO, commit)
        assert found is not None
        answer = httpx.post(f"{found[1]}/predict", files={"file": ("film.png", encoded(phantom()))}, timeout=60)
        assert answer.status_code == 200
    finally:
        process.kill()
        process.wait()
