"""A snapshot folder fit to publish, of random bytes where a real one has weights."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from pneumonet.snapshot import (
    AdmissionConfig,
    AgreementConfig,
    InputConfig,
    MemberConfig,
    PredictionSetConfig,
    SnapshotConfig,
    write_config,
)
from pneumonet.taxonomy import CLASS_NAMES
from tests.hub.server import Files

REPO = "org/pneumonet"
WEIGHTS = "convnext_tiny/model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 16472\n"
NEEDED = {
    "config.json", "README.md", "metrics.json", "admission.safetensors", "presentation.safetensors",
    "convnext_tiny/config.json",
    "convnext_tiny/model.safetensors", "efficientnetv2_s/config.json", "efficientnetv2_s/model.safetensors",
}  # fmt: skip
MEMBERS = (
    MemberConfig("convnext_tiny", "ConvNeXt-Tiny", "convnext_tiny", 0.4, 1.0, "stages.3"),
    MemberConfig("efficientnetv2_s", "EfficientNetV2-S", "tf_efficientnetv2_s", 0.6, 1.0, "blocks.5"),
)
INPUT = InputConfig(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CARD = """---
license: apache-2.0
library_name: timm
pipeline_tag: image-classification
model-index:
- name: PneumoNet
  results:
  - task:
      type: image-classification
    dataset:
      type: chest_xray
      name: Paediatric chest X-rays
    metrics:
    - type: accuracy
      value: 0.9
---

# PneumoNet

Research use only: this is not a
medical device.
"""


def write_snapshot(folder: Path, *, version: str = "1.0.0", seed: int = 1, values: int = 4096) -> SnapshotConfig:
    """Write a whole snapshot; `values` is how many float32 each member has."""
    rng = np.random.default_rng(seed)
    for member in MEMBERS:
        (folder / member.name).mkdir(parents=True)
        (folder / member.name / "config.json").write_text(json.dumps(_timm_config(member)))
        save_file({"head": rng.random(values, np.float32)}, folder / member.name / "model.safetensors")
    save_file({"mean": rng.random(64, np.float32)}, folder / "admission.safetensors")
    save_file({"bias": rng.random(12, np.float32)}, folder / "presentation.safetensors")
    write_card_and_metrics(folder, version)
    (folder / "figures").mkdir()
    (folder / "figures" / "roc.png").write_bytes(rng.bytes(200))
    return write_config(
        folder,
        version=version,
        held_back_fold=0,
        input_config=INPUT,
        members=MEMBERS,
        admission=AdmissionConfig(
            64, 3.0, 0.02, 0.02, 0.1, 0.5, "presentation.safetensors", "admission.safetensors", {"convnext_tiny": 1.0}
        ),
        prediction_set=PredictionSetConfig(0.9, dict.fromkeys(CLASS_NAMES, 0.2)),
        agreement=AgreementConfig(1.0),
    )


def _timm_config(member: MemberConfig) -> dict[str, object]:
    size, mean, std = INPUT.size, list(INPUT.mean), list(INPUT.std)
    return {
        "architecture": member.architecture, "num_classes": 3, "label_names": list(CLASS_NAMES),
        "pretrained_cfg": {"input_size": [3, size, size], "mean": mean, "std": std, "num_classes": 3},
    }  # fmt: skip


def write_card_and_metrics(folder: Path, version: str) -> None:
    """Write what a snapshot needs beside the files that the app loads, to be fit to publish."""
    (folder / "README.md").write_text(CARD)
    metrics = {"accuracy": 0.9, "auroc_macro": 0.95, "n": 624, "data": "test split", "model": version}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def files_of(folder: Path) -> Files:
    """Return every file below a folder, by its path relative to it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pulled_files(folder: Path) -> set[str]:
    """Return the names of what was pulled."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
