"""A snapshot that is not what it says: nothing starts from it, and the sentence names the file."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pneumonet.engines.graph import open_graph
from pneumonet.errors import SnapshotError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.snapshot import SnapshotConfig
from tests.support.snapshots import edit_config, poison, with_true_digest, write_tiny_snapshot

ROOT = Path(__file__).resolve().parents[1]
CONVNEXT, EFFICIENTNET = "convnext_tiny/model.safetensors", "efficientnetv2_s/model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 16472\n"


def _swapped_members(folder: Path) -> None:
    first, second = (folder / name for name in (CONVNEXT, EFFICIENTNET))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    for name in (CONVNEXT, EFFICIENTNET):
        with_true_digest(folder, name)


def _of_another_revision(folder: Path) -> None:
    tensors = load_file(folder / EFFICIENTNET)
    save_file({name: np.asarray(tensor + 1, tensor.dtype) for name, tensor in tensors.items()}, folder / EFFICIENTNET)


def _member_says(key: str, value: object) -> Callable[[Path], object]:
    """A member's own config.json, as timm reads it, says something else, with a right digest."""
    return lambda folder: edit_config(folder, lambda c: c.update({key: value}), "efficientnetv2_s")


def _member_input(key: str, value: object) -> Callable[[Path], object]:
    return lambda folder: edit_config(folder, lambda c: c["pretrained_cfg"].update({key: value}), "efficientnetv2_s")


LIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes swapped": (lambda f: edit_config(f, lambda c: c["class_names"].reverse()), r"config\.json.*class_names"),
    "a member's classes swapped": (
        lambda f: edit_config(f, lambda c: c["label_names"].reverse(), "convnext_tiny"),
        r"convnext_tiny/config\.json.*label_names",
    ),
    "a member's classes left out": (
        lambda f: edit_config(f, lambda c: c.pop("label_names"), "convnext_tiny"),
        r"convnext_tiny/config\.json.*label_names",
    ),
    "a member of two classes": (_member_says("num_classes", 2), r"efficientnetv2_s/config\.json.*num_classes"),
    "a member of another architecture": (
        _member_says("architecture", "test_convnext"), r"efficientnetv2_s/config\.json.*architecture",
    ),
    "a member of another size": (
        _member_input("input_size", [3, 64, 64]), r"efficientnetv2_s/config\.json.*input_size",
    ),
    "a member of another mean": (_member_input("mean", [0.5] * 3), r"efficientnetv2_s/config\.json.*mean"),
    "a member of another deviation": (_member_input("std", [0.5] * 3), r"efficientnetv2_s/config\.json.*std"),
    "a member that says nothing": (
        _member_says("pretrained_cfg", None), r"efficientnetv2_s/config\.json.*pretrained_cfg",
    ),
    "sets of other classes": (
        lambda f: edit_config(f, lambda c: c["prediction_set"].update(thresholds={"NORMAL": 0.2})), r"thresholds",
    ),
    "not a number": (lambda f: poison(f, EFFICIENTNET, np.nan), r"efficientnetv2_s/model\.safetensors.*not finite"),
    "infinite": (lambda f: poison(f, CONVNEXT, np.inf), r"convnext_tiny/model\.safetensors.*not finite"),
    "admission not a number": (
        lambda f: poison(f, "admission.safetensors", np.nan), r"admission\.safetensors.*not finite",
    ),
    "presentation not a number": (
        lambda f: poison(f, "presentation.safetensors", np.nan), r"presentation.*not finite",
    ),
    "member missing": (lambda f: (f / CONVNEXT).unlink(), r"lacks convnext_tiny/model\.safetensors"),
    "member not in config": (lambda f: edit_config(f, lambda c: c["members"].pop()), r"weights sum to 1"),
    "members swapped": (_swapped_members, r"convnext_tiny are not those"),
    "two revisions mixed": (_of_another_revision, r"efficientnetv2_s/model\.safetensors is damaged"),
    "truncated": (
        lambda f: (f / CONVNEXT).write_bytes((f / CONVNEXT).read_bytes()[:-9]), r"convnext_tiny/model.*damaged",
    ),
    "pointer": (lambda f: (f / EFFICIENTNET).write_bytes(POINTER), r"efficientnetv2_s/model\.safetensors is damaged"),
    "wrong hash": (
        lambda f: edit_config(f, lambda c: c["files"][CONVNEXT].update(sha256="0" * 64)),
        r"convnext_tiny/model.*SHA-256",
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


def test_a_member_s_classes_are_read_although_the_engine_is_converted_already(tmp_path: Path) -> None:
    settings = Settings(cache_dir=tmp_path / "cache")
    write_tiny_snapshot(tmp_path / "snapshot")
    LIES["a member's classes swapped"][0](tmp_path / "snapshot")
    open_graph(tmp_path / "snapshot", SnapshotConfig.read(tmp_path / "snapshot"), settings.cache_dir)
    with pytest.raises(SnapshotError, match=r"convnext_tiny/config\.json"):
        PneumoNet.from_pretrained(tmp_path / "snapshot", device="cpu", engine="openvino", settings=settings)


@pytest.mark.parametrize("text", ["{half", "[]", "3", "[" * 100_000], ids=["half", "list", "number", "deep"])
def test_a_member_s_config_that_is_none_is_refused_and_named(tmp_path: Path, text: str) -> None:
    write_tiny_snapshot(tmp_path)
    (tmp_path / "convnext_tiny" / "config.json").write_text(text)
    with_true_digest(tmp_path, "convnext_tiny/config.json")
    with pytest.raises(SnapshotError, match=r"convnext_tiny/config\.json"):
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
