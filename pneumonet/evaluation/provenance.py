"""Which weights, command and day figures are of, and their file."""

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from pneumonet import __version__
from pneumonet.model import PneumoNet

_MEASURED_PACKAGES: Final = ("torch", "openvino", "numpy", "opencv-python-headless", "pillow", "gradio")


def provenance(model: PneumoNet, script: str, given: Sequence[str]) -> dict[str, Any]:
    """Return the weights that figures are of, what ran them, the command that made them and its day."""
    engine = model.ensemble.engine
    return {
        "model": model.info.to_dict(),
        "engine": f"{engine.name}, {engine.precision}",
        "command": command_line(script, given),
        "date": today(),
    }


def today() -> str:
    """Return the day in UTC, as ISO 8601 has it."""
    return datetime.now(timezone.utc).date().isoformat()


def machine() -> dict[str, Any]:
    """Return what times and memory depend on beside the weights: processor, threads, versions."""
    versions = {name: importlib.metadata.version(name) for name in _MEASURED_PACKAGES}
    return {
        "cpu": _cpu(),
        "threads": os.cpu_count(),
        "versions": {"pneumonet": __version__, "python": platform.python_version(), **versions},
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if match:
            return match[1]
    return platform.processor()


def write_report(report: dict[str, Any], path: Path | None) -> None:
    """Write figures as JSON, where a file is asked for."""
    if path:
        path.write_text(json.dumps(report, indent=2) + "\n")


def command_line(script: str, given: Sequence[str]) -> str:
    """Return a script's command line with the machine's own folders taken out.

    >>> command_line("evaluate", ["films", "--json=/home/me/out.json"])
    'python scripts/evaluate.py films --json=out.json'
    """
    return shlex.join(["python", f"scripts/{script}.py", *map(_portable, given)])


def _portable(argument: str) -> str:
    """Return an argument whose absolute path, if it is one, became its last part."""
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{portable_path(value)}"


def portable_path(path: str) -> str:
    """Return a path that tells nothing of this machine: an absolute one becomes its last part.

    >>> portable_path("/data/films"), portable_path("../data/films")
    ('films', '../data/films')
    """
    return Path(path).name if Path(path).is_absolute() else path
