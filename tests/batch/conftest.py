"""The command as a process, films of every kind, and films that do harm to the process that reads them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pneumonet.model import PneumoNet
from tests.support.films import encoded, phantom
from tests.web.conftest import dicom
from tests.web.test_bad_input import cut

ROOT = Path(__file__).parents[2]
# What a film ends with so that the process that answers it comes to harm: a JPEG's decoder passes over it.
END, END_ONCE, RAISE = b"<end this process>", b"<end this process once>", b"<raise>"
HANG, HANG_ONCE, HELD = b"<never come back>", b"<wait to be released, once>", b"<wait to be released>"
# Python imports this module at its start, in every process that finds it.
HARM = f"""
import hashlib, os, signal, time

_sha256 = hashlib.sha256


def sha256(data=b"", **options):
    if isinstance(data, bytes):
        once, released = os.environ.get("ENDED_ONCE", ""), os.environ.get("RELEASED", "")
        if {END_ONCE!r} in data and not os.path.exists(once):
            open(once, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        waits = {HELD!r} in data
        if {HANG_ONCE!r} in data and not os.path.exists(once):
            open(once, "w").close()
            waits = True
        while waits and not os.path.exists(released):
            time.sleep(0.01)
        if {HANG!r} in data:
            time.sleep(600)
        if {END!r} in data:
            os.kill(os.getpid(), signal.SIGKILL)
        if {RAISE!r} in data:
            raise RuntimeError("nobody foresaw this")
    return _sha256(data, **options)


hashlib.sha256 = sha256
"""


def film(seed: int, harm: bytes = b"") -> bytes:
    return encoded(phantom(150, 130, seed=seed), "JPEG") + harm


# The code that each name's row has to have, and its bytes: None for a link to a folder that is away.
Kinds = dict[str, tuple[str | None, Callable[[], bytes | None]]]
BAD_FILMS: Kinds = {
    "blank.png": ("not_admitted", lambda: encoded(np.full((300, 260), 90, dtype=np.uint8))),
    "cut.dcm": ("unreadable_image", lambda: cut(dicom(phantom()))),
    "cut.jpg": ("unreadable_image", lambda: cut(film(1))),
    "empty.png": ("empty_file", lambda: b""),
    "ends-its-process.jpg": ("worker_died", lambda: film(2, END)),
    "ends-its-process-once.jpg": (None, lambda: film(3, END_ONCE)),
    "gone.png": ("file_unavailable", lambda: None),
    "noise.bin": ("file_too_large", lambda: np.random.default_rng(0).bytes(10_000_001)),
    "raises.jpg": ("internal_error", lambda: film(4, RAISE)),
    "text.png": ("unsupported_format", lambda: b"a text, whatever its name says"),
    "z-held.jpg": (None, lambda: film(5, HELD)),
}


def harm(folder: Path) -> Path:
    """Return a folder for PYTHONPATH with which films come to do harm."""
    (folder / "sitecustomize.py").write_text(HARM)
    return folder


@pytest.fixture(scope="session")
def environment(tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The command's environment; the model has put its converted backbones into the cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PNEUMONET_")}
    own = {"PNEUMONET_MODEL": str(tiny_snapshot), "PNEUMONET_DEVICE": "cpu", "PNEUMONET_MAX_UPLOAD_MB": "10"}
    return kept | own | {"PYTHONPATH": str(harm(tmp_path_factory.mktemp("harm")))}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """A function that starts the command."""

    def begin(*arguments: object) -> "subprocess.Popen[str]":
        return command(*arguments, environment=environment | of_harm(tmp_path))

    return begin


@dataclass(frozen=True)
class Run:
    """What a run of the command came to."""

    folder: Path
    out: Path
    code: int
    printed: str
    told: str


@pytest.fixture(scope="session")
def answered_here(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Films of every kind, answered by this machine's processes."""
    tmp = tmp_path_factory.mktemp("here")
    folder, out = write_films(tmp / "films", 6, BAD_FILMS), tmp / "out.parquet"
    (tmp / "released").touch()
    process = command(folder, "--out", out, "--workers", 2, environment=environment | of_harm(tmp))
    printed, told = process.communicate(timeout=120)
    return Run(folder, out, process.returncode, printed, told)


def of_harm(folder: Path) -> dict[str, str]:
    """Return the environment that films which do harm look at."""
    return {"ENDED_ONCE": str(folder / "ended-once"), "RELEASED": str(folder / "released")}


def until(process: "subprocess.Popen[str]", done: Callable[[], object]) -> None:
    """Wait until something comes of a process."""
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


def command(*arguments: object, environment: dict[str, str]) -> "subprocess.Popen[str]":
    """Start `python -m pneumonet batch`."""
    return subprocess.Popen(
        [sys.executable, "-m", "pneumonet", "batch", *map(str, arguments)],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def write_films(folder: Path, count: int, names: Kinds) -> Path:
    """Write good films, and bad ones among them."""
    folder.mkdir(parents=True)
    for seed in range(count):
        (folder / f"film-{seed:02}.jpg").write_bytes(film(seed + 100))
    for name, (_, make) in names.items():
        if (data := make()) is None:
            (folder / name).symlink_to("away/nothing")
        else:
            (folder / name).write_bytes(data)
    return folder


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
