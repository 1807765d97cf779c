"""A whole snapshot of tiny backbones with random weights: the real code paths, in milliseconds; how to spoil it."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.numpy import load_file, save_file

from pneumonet.admission import THUMBNAIL
from pneumonet.feature_space import FeatureSpace, save_spaces
from pneumonet.presentation import PRESENTATIONS, PresentationClassifier
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import (
    CONFIG_FILE,
    AdmissionConfig,
    AgreementConfig,
    InputConfig,
    MemberConfig,
    PredictionSetConfig,
    SnapshotConfig,
    digest_of,
    write_config,
)
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.export import export_member
from pneumonet.training.presentation import fit_presentation
from tests.support.films import phantom

INPUT = InputConfig(size=96, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MEMBERS = (
    MemberConfig("convnext_tiny", "ConvNeXt-Tiny", "test_convnext", 0.4, 1.3, "stages.3"),
    MemberConfig("efficientnetv2_s", "EfficientNetV2-S", "test_efficientnet", 0.6, 0.8, "bn2"),
)


@cache
def phantom_presentation() -> PresentationClassifier:
    """A classifier that knows phantoms of several shapes, and bright blobs anywhere in them."""
    rng = np.random.default_rng(11)
    films = [
        phantom(int(rng.integers(150, 320)), int(rng.integers(150, 320)), tuple(rng.uniform(0.2, 0.8, 2)), seed)
        for seed in range(60)
    ]
    return fit_presentation([Radiograph(film.astype(np.float32) / np.float32(255), "PNG") for film in films])


def any_presentation() -> PresentationClassifier:
    """A classifier to which every picture is as upright as any other."""
    kinds = len(PRESENTATIONS)
    return PresentationClassifier(np.zeros((kinds, 32 * 32), np.float32), np.zeros(kinds, np.float32))


def write_tiny_snapshot(
    folder: Path,
    *,
    max_distance: float = 1e9,
    max_total_variation: float = 1.0,
    presentation: PresentationClassifier | None = None,
    version: str = "0.0.1",
) -> SnapshotConfig:
    """Write a snapshot whose admission lets every grey picture of some contrast pass, unless told otherwise."""
    torch.manual_seed(7)
    for member in MEMBERS:
        model = timm.create_model(member.architecture, num_classes=3)
        export_member(model, member.architecture, INPUT, folder / member.name)
    rng = np.random.default_rng(7)
    space = FeatureSpace.fit(rng.normal(size=(40, 32 * 32)).astype(np.float32), 8)
    save_spaces({THUMBNAIL: space}, folder / "admission.safetensors")
    (presentation or any_presentation()).save(folder / "presentation.safetensors")
    return write_config(
        folder,
        version=version,
        held_back_fold=0,
        input_config=INPUT,
        members=MEMBERS,
        admission=AdmissionConfig(
            min_side=48,
            max_aspect=3.0,
            min_contrast=0.02,
            min_detail=0.02,
            max_colourfulness=0.1,
            min_upright=0.4 if presentation else 0.0,
            presentation_file="presentation.safetensors",
            features_file="admission.safetensors",
            max_distance={THUMBNAIL: max_distance},
        ),
        prediction_set=PredictionSetConfig(coverage=0.9, thresholds=dict.fromkeys(CLASS_NAMES, 0.2)),
        agreement=AgreementConfig(max_total_variation=max_total_variation),
    )


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object], member: str | None = None) -> None:
    """Change the snapshot's config.json, or a member's own with its digest made right."""
    name = f"{member}/{CONFIG_FILE}" if member else CONFIG_FILE
    config = json.loads((folder / name).read_text())
    change(config)
    (folder / name).write_text(json.dumps(config))
    if member:
        with_true_digest(folder, name)


def with_true_digest(folder: Path, name: str) -> None:
    """Make config.json's digest of a file that was spoilt right: only looking into the file can tell."""
    digest = digest_of(folder / name)
    edit_config(folder, lambda c: c["files"].update({name: {"size": digest.size, "sha256": digest.sha256}}))


def poison(folder: Path, name: str, value: float) -> None:
    """Make one value of a file not finite, and its digest right."""
    tensors = load_file(folder / name)
    tensor = next(tensor for key, tensor in sorted(tensors.items()) if tensor.ndim and tensor.dtype.kind == "f")
    tensor.flat[0] = value
    save_file(tensors, folder / name)
    with_true_digest(folder, name)
