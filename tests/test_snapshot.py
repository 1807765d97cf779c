"""A snapshot's config: what is checked before any weight is loaded."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pneumonet.errors import SnapshotError
from pneumonet.model import PneumoNet
from pneumonet.snapshot import SnapshotConfig, verify_files
from tests.support.snapshots import MEMBERS, write_tiny_snapshot


def _edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    write_tiny_snapshot(folder)
    path = folder / "config.json"
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    return folder


def test_a_written_config_reads_back(tmp_path: Path) -> None:
    written = write_tiny_snapshot(tmp_path)
    assert SnapshotConfig.read(tmp_path) == written
    assert written.members == MEMBERS
    assert written.fingerprint == hashlib.sha256((tmp_path / "config.json").read_bytes()).hexdigest()[:12]
    weights = tmp_path / "convnext_tiny" / "model.safetensors"
    digest = written.files["convnext_tiny/model.safetensors"]
    assert digest.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest.size == weights.stat().st_size
    verify_files(tmp_path, written)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.update(format=3),
        lambda d: d.update(class_names=["NORMAL", "BACTERIAL_PNEUMONIA", "VIRAL_PNEUMONIA"]),
        lambda d: d["members"][0].update(weight=0.5),
        lambda d: d["members"][0].update(temperature=0),
        lambda d: d.update(members=[]),
        lambda d: d["input"].pop("mean"),
        lambda d: d["files"].pop("convnext_tiny/model.safetensors"),
        lambda d: d["members"][0].update(name="../../etc"),
        lambda d: d["files"].update({"/etc/passwd": {"size": 1, "sha256": "0" * 64}}),
        lambda d: d["files"].update({"../model.safetensors": {"size": 1, "sha256": "0" * 64}}),
        lambda d: d["files"].update({"README.md": {"size": 1, "sha256": "0" * 64}}),
        lambda d: d["admission"].update(features_file="/etc/passwd"),
        lambda d: d.pop("admission"),
    ],
    ids=[
        "newer-format",
        "class-order",
        "weights-do-not-sum-to-one",
        "zero-temperature",
        "no-members",
        "no-mean",
        "no-digest",
        "climbing-name",
        "absolute-path",
        "climbing-path",
        "a-file-too-many",
        "absolute-admission",
        "no-admission",
    ],
)
def test_a_config_that_contradicts_itself_is_refused(tmp_path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(SnapshotError, match=r"config\.json|weights"):
        SnapshotConfig.read(_edited(tmp_path, edit))


def test_no_config_and_no_json_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="no readable"):
        SnapshotConfig.read(tmp_path)
    (tmp_path / "config.json").write_text("{half")
    with pytest.raises(SnapshotError, match="cannot be understood"):
        SnapshotConfig.read(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    config = write_tiny_snapshot(tmp_path)
    path = tmp_path / "efficientnetv2_s" / "model.safetensors"
    raw = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(SnapshotError, match=r"efficientnetv2_s/model\.safetensors"):
        verify_files(tmp_path, config)


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["members"][0].update(temperature=float("nan")),
        lambda d: d["members"][0].update(weight=-1) or d["members"][1].update(weight=2),
        lambda d: d["members"][0].update(weight="much"),
        lambda d: d["members"][1].update(name="convnext_tiny"),
        lambda d: d["input"].update(size=0),
        lambda d: d["input"].update(std=[0, 0, 0]),
        lambda d: d["admission"].update(max_distance=[1.0]),
        lambda d: d["admission"].update(min_side="wide"),
        lambda d: d["prediction_set"].update(thresholds="high"),
        lambda d: d["files"].update({"config.json": 3}),
        lambda d: d["members"][0].update(display_name="n" * 101),
    ],
    ids=[
        "temperature-nan",
        "negative-weight",
        "weight-in-words",
        "one-name-twice",
        "no-size",
        "zero-deviation",
        "distances-in-a-list",
        "side-in-words",
        "threshold-in-words",
        "digest-a-number",
        "endless-display-name",
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused(
    tmp_path: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    with pytest.raises(SnapshotError, match=r"config\.json"):
        SnapshotConfig.read(_edited(tmp_path, edit))


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "null"], ids=["deep", "list", "number", "null"])
def test_json_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SnapshotError, match="cannot be understood"):
        SnapshotConfig.read(tmp_path)


def test_a_target_layer_that_is_not_the_last_feature_map_is_refused(tmp_path: Path) -> None:
    folder = _edited(tmp_path, lambda d: d["members"][0].update(target_layer="stem"))
    with pytest.raises(SnapshotError, match="target layer stem"):
        PneumoNet.from_pretrained(folder, device="cpu")


def test_a_threshold_for_an_unknown_member_is_refused(tmp_path: Path) -> None:
    folder = _edited(tmp_path, lambda d: d["admission"].update(max_distance={"resnet": 1.0}))
    with pytest.raises(SnapshotError, match="resnet"):
        PneumoNet.from_pretrained(folder, device="cpu")
