"""Every snippet of README.md is run as it stands there, or listed here with the reason why it is not."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
from safetensors.torch import load_file

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web import uploads
from pneumonet.web.gradio_routes import MCP_ROUTE
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving
from tests.web.test_endpoints import GRADIO_KEYS
from tests.web.test_mcp import visit
from tests.web.test_rest import KEYS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing")

ROOT: Final = Path(__file__).resolve().parents[1]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")

# By the text of the README, less its comments.
NOT_RUN: Final = {
    "make run": "installs from PyPI and serves until it is stopped; tests/web/test_life.py starts and stops app.py",
    "make test": "is this run of the tests",
    "make bench": "measures for minutes; tests/test_benchmark.py runs the script",
    "make weights VERSION=1.0.0": "trains for hours; tests/training/test_make_weights.py has its commands",
    "PNEUMONET_MODEL=org/name PNEUMONET_REVISION=v0.3.0 make run": "pulls; tests/hub/test_published_start.py",
    ".venv/bin/python scripts/publish.py model_card org/name": "pushes to the Hub; tests/hub/test_publish.py",
    ".venv/bin/python scripts/deploy_space.py org/space --model org/name --revision v0.3.0 --dry-run": (
        "needs a clone with everything committed; tests/hub/test_space.py"
    ),
    "HF_TOKEN=... .venv/bin/python scripts/deploy_space.py org/space --model org/name --revision v0.3.0": (
        "pushes to the Hub; tests/hub/test_space.py"
    ),
    ".venv/bin/python -m pip install -r requirements-batch.txt": "installs from PyPI",
    ".venv/bin/python -m pip install -r requirements-mcp.txt": "installs from PyPI",
    "PNEUMONET_MCP=1 make run": "installs and serves until it is stopped; tests/web/test_mcp.py starts app.py with it",
    ".venv/bin/python scripts/train.py tf_efficientnet_lite0 --init package --precision float32 --sizes 0:192 "
    "--epochs 5 --learning-rate 5e-4 --ema-decay 0.99 --mixup 0 --out runs/teacher": "trains for hours",
    ".venv/bin/python scripts/train.py convnext_tiny --init model_card/convnext_tiny --teacher runs/teacher "
    "--sizes 0:192 --epochs 3 --learning-rate 3e-4 --mixup 0 --out runs/mine": "trains for hours",
    "python scripts/evaluate.py ../shared/data/chest_xray/train --held-back --quiet --json runs/held_back.json": (
        "takes minutes; tests/test_evaluate.py runs it on a few films, and tests/test_card.py holds what it printed"
    ),
    "python scripts/compare_engines.py": "takes minutes; tests/test_measuring.py",
}

# What is in the README's place, in a folder that looks like a clone; the server's address is put in as well.
IN_PLACE: Final = {
    ".venv/bin/python ": "python ",
    "/tmp/overlays": "overlays",
    "batch SOURCE ": "batch films ",
    "predict FILE ": "predict film.png ",
    "--report-dir DIR": "--report-dir reports",
}
ADDRESS: Final = "http://127.0.0.1:7860"

# What may be run unseen: it writes nothing but where it is told to, and asks nobody but the server.
RUNNABLE: Final = re.compile(
    r"([A-Z]+=\$\()?"
    r"(curl |python -c |python -m pneumonet (predict|batch|info)\b|python scripts/make_weights\.py .*--list$)"
)
COMMAND: Final = re.compile(r"([A-Z_]+=\S+ )*(curl|openssl|make|docker|git|pip|python|\.venv/bin/\S+) ")

# By how a snippet begins: what of its output stays the same, and the files that it leaves.
SHOWN: Final[dict[str, tuple[str, ...]]] = {
    "curl -F file=@": tuple(KEYS),
    "curl -H 'Content-Type": tuple(KEYS),
    "curl http://127.0.0.1:7860/health": ("healthy", "version"),
    "curl http://127.0.0.1:7860/api": ("errors", "routes", "internal_error"),
    "curl http://127.0.0.1:7860/metrics": ("pneumonet_requests_total", "pneumonet_model_info"),
    "FILE=$(curl": ("event: complete", *GRADIO_KEYS),
    '.venv/bin/python -c "from gradio_client': tuple(GRADIO_KEYS),
    '.venv/bin/python -c "from pneumonet': ("Finding(label=", "probabilities={"),
    ".venv/bin/python -m pneumonet predict": ("synthetic_normal_1.png", "Research use only"),
    ".venv/bin/python -m pneumonet batch": ("3 films",),
    "python -m pneumonet predict FILE": ("film.png", "Research use only"),
    "python scripts/make_weights.py": ("scripts/train.py", "--version 1.0.0"),
}
LEFT: Final = {
    ".venv/bin/python -m pneumonet predict": ("overlays/synthetic_normal_1.overlay.png",),
    ".venv/bin/python -m pneumonet batch": ("results.parquet",),
    "python -m pneumonet predict FILE": ("reports/film.report.pdf",),
}


@dataclass(frozen=True)
class Snippet:
    """A piece of the README: its language, and its text without comments."""

    language: str
    text: str


def _lines(block: str) -> list[str]:
    """Return a shell block's commands, each on one line."""
    joined = re.sub(r"\\\n\s*", "", block)
    return [line for line in (re.sub(r"\s+# .*", "", line).strip() for line in joined.splitlines()) if line]


def _fences() -> list[Snippet]:
    return [Snippet(*found) for found in re.findall(r"^```(\S*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)]


def _spans() -> list[str]:
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    return list(dict.fromkeys(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)))


def _commands() -> list[str]:
    """Return every command of the README, each on one line."""
    fenced = [line for fence in _fences() if fence.language == "sh" for line in _lines(fence.text)]
    return fenced + [span for span in _spans() if COMMAND.match(span)]


def _is_run(line: str) -> bool:
    return RUNNABLE.match(line.replace(".venv/bin/python ", "python ")) is not None


def _scripts() -> list[str]:
    """Return what is to be run: of each block the lines that can be, together, and each command in the prose."""
    blocks = [[line for line in _lines(f.text) if _is_run(line)] for f in _fences() if f.language == "sh"]
    return ["\n".join(lines) for lines in blocks if lines] + [s for s in _spans() if COMMAND.match(s) and _is_run(s)]


def _starting(table: dict[str, Any], text: str) -> tuple[str, ...]:
    return next((value for start, value in table.items() if text.startswith(start)), ())


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a clone, with a film and a folder of films in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pneumonet", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "model_card").symlink_to(ROOT / "model_card")
    (folder / "films").mkdir()
    for number in range(3):
        (folder / "films" / f"{number}.png").write_bytes(encoded(phantom(seed=number)))
    (folder / "film.png").write_bytes(encoded(phantom()))
    # curl alone takes an answer that says no for an answer.
    (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 120\n")
    return folder


@pytest.fixture(scope="module")
def server(tiny_snapshot: Path, tiny_model: PneumoNet, clone: Path) -> Iterator[Running]:
    settings = Settings(model=str(tiny_snapshot), device="cpu", mcp=find_spec("mcp") is not None)
    with pytest.MonkeyPatch.context() as patch:
        # A machine that is busy with other things fetches a picture later than people do.
        patch.setattr(uploads.outputs, "_seconds", 120.0)
        with serving(settings, lambda: tiny_model, clone / "downloads", build=None) as running:
            yield running


def _run(script: str, clone: Path, snapshot: Path, address: str) -> str:
    for text, other in (IN_PLACE | {ADDRESS: address}).items():
        script = script.replace(text, other)
    for tool in ("bash", "curl", "openssl"):
        if tool in ("bash", *shlex.split(script.replace("$(", " "))) and shutil.which(tool) is None:
            pytest.skip(f"there is no {tool}")
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CURL_HOME": str(clone),
        "GRADIO_TEMP_DIR": str(clone / "tmp"),
        "PNEUMONET_MODEL": str(snapshot),
        "PNEUMONET_DEVICE": "cpu",
    }
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
    return ran.stdout


@pytest.mark.parametrize("script", _scripts(), ids=lambda script: script[:60])
def test_a_command_does_what_it_says(script: str, server: Running, clone: Path, tiny_snapshot: Path) -> None:
    output = _run(script, clone, tiny_snapshot, server.url)
    for word in _starting(SHOWN, script):
        assert word in output
    for name in _starting(LEFT, script):
        assert (clone / name).stat().st_size > 0
    if script.startswith("curl -") and "/predict" in script:
        assert set(json.loads(output)) == KEYS


@pytest.mark.parametrize("code", [f.text for f in _fences() if f.language == "python"], ids=lambda code: code[:60])
def test_python_runs_and_loads_the_weights_that_it_names(
    code: str, server: Running, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if " mcp" in code:
        pytest.importorskip("mcp", reason="the package mcp is not installed: requirements-mcp.txt")
    monkeypatch.chdir(clone)
    names: dict[str, Any] = {}
    exec(compile(code.replace(ADDRESS, server.url), "README.md", "exec"), names)
    for folder in re.findall(r"local-dir:([\w/]+)", code):
        weights = load_file(clone / folder / "model.safetensors")
        loaded = names["model"].state_dict()
        assert all(loaded[name].allclose(tensor.to(loaded[name].dtype)) for name, tensor in weights.items())


@pytest.mark.parametrize("span", [s for s in _spans() if re.match("(GET|HEAD|POST) /|http://127", s)])
def test_a_request_in_the_prose_is_answered(span: str, server: Running, clone: Path) -> None:
    if MCP_ROUTE in span:
        pytest.importorskip("mcp", reason="the package mcp is not installed: requirements-mcp.txt")
        assert [tool.name for tool in visit(server, lambda session: session.list_tools()).tools] == ["predict"]
        return
    method, path = span.split(" ", 1) if " " in span else ("GET", span.removeprefix(ADDRESS))
    before, _, choices = path.rpartition("=")
    for choice in choices.split("|"):
        asked = f"{before}={choice}" if before else choice
        film = {"files" if path == uploads.UPLOAD_ROUTE else "file": ("film.png", (clone / "film.png").read_bytes())}
        with server.http() as http:
            answer = http.request(method, asked or "/", files=film if method == "POST" else None)
        assert answer.status_code == 200, answer.text


def test_an_error_has_the_keys_that_are_said(server: Running) -> None:
    said = re.search(r'`\{("error".*?)\}`', README)
    assert said
    with server.http() as http:
        assert set(http.post("/predict").json()) == set(json.loads(f"[{said[1]}]"))


def test_every_snippet_is_run_or_listed() -> None:
    missed = [line for line in _commands() if line not in NOT_RUN and not _is_run(line)]
    missed += [
        fence.text for fence in _fences() if fence.language not in ("sh", "python") and fence.text not in NOT_RUN
    ]
    assert not missed, "run them, or list them in NOT_RUN with the reason"


def test_nothing_is_listed_that_the_readme_has_not() -> None:
    commands = _commands()
    assert NOT_RUN.keys() <= set(commands)
    assert not [line for line in NOT_RUN if _is_run(line)]
    scripts = _scripts()
    for start in (*SHOWN, *LEFT):
        assert any(script.startswith(start) for script in scripts), start


def test_scripts_options_and_files_that_are_named_exist(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, set[str]] = {}
    for text in (*_commands(), *_spans()):
        for script in re.findall(r"scripts/\w+\.py", text):
            options.setdefault(script, set()).update(re.findall(r" (--[\w-]+)", text))
    assert len(options) > 10
    for script, named in options.items():
        assert (ROOT / script).is_file()
        if named:
            # Some take their options from elsewhere, so each is asked itself.
            monkeypatch.setattr(sys, "argv", [script, "--help"])
            with pytest.raises(SystemExit):
                import_module(f"scripts.{Path(script).stem}").main()
            assert named <= set(re.findall(r"--[\w-]+", capsys.readouterr().out)), script
    for name in re.findall(r"(?:requirements[\w-]*\.txt|pneumonet/web/examples/\w+\.png)", README):
        assert (ROOT / name).is_file(), name
