"""A member's input and halves, and that a researcher can take one backbone without our code."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from pneumonet.errors import SnapshotError
from pneumonet.members import Member
from pneumonet.preprocessing import squash, to_batch
from pneumonet.radiograph import Radiograph
from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import SnapshotConfig
from tests.support.films import phantom
from tests.support.snapshots import INPUT, MEMBERS, write_tiny_snapshot


def _film(height: int = 300, width: int = 260) -> Radiograph:
    return Radiograph(phantom(height, width).astype(np.float32) / 255, "PNG")


def test_squash_is_pillow_s_antialiased_bilinear() -> None:
    pixels = phantom(300, 500)
    ours = squash(pixels.astype(np.float32) / 255, 96)
    theirs = np.asarray(Image.fromarray(pixels).resize((96, 96), Image.Resampling.BILINEAR)) / 255
    # Pillow rounds an 8-bit picture after each of its two passes.
    np.testing.assert_allclose(ours, theirs, atol=1.1 / 255)


def test_batch_is_normalised_grey_in_three_channels() -> None:
    flat = Radiograph(np.full((80, 60), 0.5, dtype=np.float32), "PNG")
    batch = to_batch([flat, flat], INPUT)
    assert batch.shape == (2, 3, 96, 96)
    for channel in range(3):
        expected = (0.5 - INPUT.mean[channel]) / INPUT.std[channel]
        np.testing.assert_allclose(batch[:, channel], np.full((2, 96, 96), expected), rtol=1e-5)


def _snapshots(tiny: Path) -> list[Path]:
    return [tiny, DEFAULT_SNAPSHOT]


@pytest.mark.parametrize("which", [0, 1], ids=["tiny", "committed"])
@pytest.mark.parametrize("index", [0, 1], ids=["convnext", "efficientnet"])
def test_timm_alone_loads_a_member_and_gives_our_logits(tiny_snapshot: Path, which: int, index: int) -> None:
    snapshot = _snapshots(tiny_snapshot)[which]
    config = SnapshotConfig.read(snapshot)
    member = config.members[index]
    folder = snapshot / member.name
    ours = Member.load(member, snapshot)
    batch = torch.from_numpy(to_batch([_film(), _film(200, 400)], config.input))
    head = ours.head()

    by_overlay = timm.create_model(
        member.architecture,
        pretrained=True,
        num_classes=3,
        pretrained_cfg_overlay={"file": str(folder / "model.safetensors"), "num_classes": 3},
    ).eval()
    by_folder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.inference_mode():
        expected = torch.from_numpy(head.logits(head.embed(ours.features(batch).numpy())))
        torch.testing.assert_close(by_overlay(batch), expected)
        torch.testing.assert_close(by_folder(batch), expected)


@pytest.mark.parametrize("index", [0, 1], ids=["convnext", "efficientnet"])
def test_timm_s_own_transform_makes_our_input(tiny_snapshot: Path, index: int) -> None:
    model = timm.create_model(f"local-dir:{tiny_snapshot / MEMBERS[index].name}", pretrained=True)
    transform = create_transform(**resolve_model_data_config(model))
    pixels = phantom(300, 260)
    theirs = transform(Image.fromarray(pixels).convert("RGB"))
    ours = torch.from_numpy(to_batch([Radiograph(pixels.astype(np.float32) / 255, "PNG")], INPUT)[0])
    # Pillow rounds 8-bit pixels: two grey levels over the deviation.
    torch.testing.assert_close(theirs, ours, atol=2 / 255 / min(INPUT.std), rtol=0)


def test_weights_with_a_tensor_missing_are_refused(tmp_path: Path) -> None:
    write_tiny_snapshot(tmp_path)
    path = tmp_path / MEMBERS[1].name / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("classifier.bias")
    save_file(tensors, path)
    with pytest.raises(SnapshotError, match="three classes"):
        Member.load(MEMBERS[1], tmp_path)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    write_tiny_snapshot(tmp_path)
    save_file(
        timm.create_model(MEMBERS[0].architecture, num_classes=4).state_dict(),
        tmp_path / MEMBERS[0].name / "model.safetensors",
    )
    with pytest.raises(SnapshotError, match="three classes"):
        Member.load(MEMBERS[0], tmp_path)


@pytest.mark.parametrize("architecture", ["resnet18", "vit_tiny_patch16_224", "vgg19"])
def test_an_architecture_of_another_family_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
) -> None:
    write_tiny_snapshot(tmp_path)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: pytest.fail("it was made"))
    with pytest.raises(SnapshotError, match=rf"config\.json.*{architecture}.*ConvNeXt or EfficientNet"):
        Member.load(replace(MEMBERS[0], architecture=architecture), tmp_path)


def test_an_architecture_that_timm_does_not_know_is_refused(tmp_path: Path) -> None:
    write_tiny_snapshot(tmp_path)
    with pytest.raises(SnapshotError, match="convnext_of_nobody"):
        Member.load(replace(MEMBERS[0], architecture="convnext_of_nobody"), tmp_path)


def test_a_backbone_larger_than_its_weights_takes_no_memory(tmp_path: Path) -> None:
    """3.4 GB of ConvNeXt-XXLarge for a file of a megabyte: names and shapes are compared before it is allocated."""
    write_tiny_snapshot(tmp_path)
    script = (
        "import resource, sys; from dataclasses import replace; from pathlib import Path;"
        "from pneumonet.errors import SnapshotError; from pneumonet.members import Member;"
        "from tests.support.snapshots import MEMBERS\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: Member.load(replace(MEMBERS[0], architecture='convnext_xxlarge'), Path(sys.argv[1]))\n"
        "except SnapshotError as error: print('three classes' in error.message)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    told, kilobytes = subprocess.check_output(
        [sys.executable, "-c", script, str(tmp_path)], cwd=DEFAULT_SNAPSHOT.parent, text=True
    ).split()
    assert told == "True"
    assert int(kilobytes) < 500_000
