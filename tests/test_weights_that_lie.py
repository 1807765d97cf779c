"""A snapshot that is not what it says: nothing starts from it, and the sentence names the file."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pneumonet.errors import SnapshotError
from pneumonet.model import PneumoNet
from pneumonet.snapshot import CONFIG_FILE, digest_of
from tests.support.snapshots import write_tiny_snapshot

ROOT = Path(__file__).resolve().parents[1]
CONVNEXT, EFFICIENTNET = "convnext_tiny/model.safetensors", "efficientnetv2_s/model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 16472\n"


def _edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    change(config)
    (folder / CONFIG_FILE).write_text(json.dumps(config))


def _poisoned(folder: Path, name: str, value: float) -> None:
    """One value of a file made not finite, and its digest made right: only looking at the values can tell."""
    tensors = load_file(folder / name)
    tensor = next(tensor for key, tensor in sorted(tensors.items()) if tensor.ndim and tensor.dtype.kind == "f")
    tensor.flat[0] = value
    save_file(tensors, folder / name)
    _with_true_digest(folder, name)


def _with_true_digest(folder: Path, name: str) -> None:
    digest = digest_of(folder / name)
    _edit(folder, lambda c: c["files"].update({name: {"size": digest.size, "sha256": digest.sha256}}))


def _swapped_members(folder: Path) -> None:
    first, second = (folder / name for name in (CONVNEXT, EFFICIENTNET))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    for name in (CONVNEXT, EFFICIENTNET):
        _with_true_digest(folder, name)


def _of_another_revision(folder: Path) -> None:
    tensors = load_file(folder / EFFICIENTNET)
    save_file({name: np.asarray(tensor + 1, tensor.dtype) for name, tensor in tensors.items()}, folder / EFFICIENTNET)


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes swapped": (lambda f: _edit(f, lambda c: c["class_names"].reverse()), r"config\.json.*class_names"),
    "sets of other classes": (
        lambda f: _edit(f, lambda c: c["prediction_set"].update(thresholds={"NORMAL": 0.2})), r"thresholds",
    ),
    "not a number": (lambda f: _poisoned(f, EFFICIENTNET, np.nan), r"efficientnetv2_s/model\.safetensors.*not finite"),
    "infinite": (lambda f: _poisoned(f, CONVNEXT, np.inf), r"convnext_tiny/model\.safetensors.*not finite"),
    "admission not a number": (
        lambda f: _poisoned(f, "admission.safetensors", np.nan), r"admission\.safetensors.*not finite",
    ),
    "presentation not a number": (
        lambda f: _poisoned(f, "presentation.safetensors", np.nan), r"presentation.*not finite",
    ),
    "member missing": (lambda f: (f / CONVNEXT).unlink(), r"lacks convnext_tiny/model\.safetensors"),
    "member not in config": (lambda f: _edit(f, lambda c: c["members"].pop()), r"weights sum to 1"),
    "members swapped": (_swapped_members, r"convnext_tiny are not those"),
    "two revisions mixed": (_of_another_revision, r"efficientnetv2_s/model\.safetensors is damaged"),
    "truncated": (
        lambda f: (f / CONVNEXT).write_bytes((f / CONVNEXT).read_bytes()[:-9]), r"convnext_tiny/model.*damaged",
    ),
    "pointer": (lambda f: (f / EFFICIENTNET).write_bytes(POINTER), r"efficientnetv2_s/model\.safetensors is damaged"),
    "wrong hash": (
        lambda f: _edit(f, lambda c: c["files"][CONVNEXT].update(sha256="0" * 64)), r"convnext_tiny/model.*SHA-256",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_snapshot_that_lies_is_refused_and_its_file_named(tmp_path: Path, lie: str) -> None:
    write_tiny_snapshot(tmp_path)
    PneumoNet.from_pretrained(tmp_path, device="cpu")
    tell, words = LIES[lie]
    tell(tmp_path)
    with pytest.raises(SnapshotError, match=words):
        PneumoNet.from_pretrained(tmp_path, device="cpu")


@pytest.mark.parametrize("lie", ["not a number", "truncated", "classes swapped"])
def test_the_service_does_not_start_from_it(tmp_path: Path, lie: str) -> None:
    write_tiny_snapshot(tmp_path / "snapshot")
    LIES[lie][0](tmp_path / "snapshot")
    environment = os.environ | {
        "PNEUMONET_MODEL": str(tmp_path / "snapshot"), "PNEUMONET_PORT": "0", "GRADIO_TEMP_DIR": str(tmp_path / "temp"),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "safetensors" in ended.stderr or "config.json" in ended.stderr
    assert "Traceback" not in ended.stderr
