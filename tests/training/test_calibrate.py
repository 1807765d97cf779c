"""From exported backbones and films to a snapshot that the app loads."""

import json
from pathlib import Path

import pytest
import timm
import torch

from pneumonet.admission import THUMBNAIL
from pneumonet.model import PneumoNet
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.calibrate import calibrate
from pneumonet.training.export import export_member
from tests.support.films import encoded, phantom
from tests.support.snapshots import INPUT, MEMBERS


def _films(folder: Path, first: int, count: int) -> list[Path]:
    """Phantoms of each class, the blob somewhere else in each."""
    films = []
    kinds = [
        ("NORMAL/IM-{:04}-0001.jpeg", 0.2),
        ("PNEUMONIA/person{}_bacteria_1.jpeg", 0.5),
        ("PNEUMONIA/person{}_virus_1.jpeg", 0.8),
    ]
    for kind, (name, blob) in enumerate(kinds):
        for i in range(count):
            path = folder / name.format(first + i + 1000 * kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(phantom(224, 224, (blob, 0.3), seed=first + i), "JPEG", quality=90))
            films.append(path)
    return films


def test_a_calibrated_snapshot_admits_its_films_and_refuses_noise(tmp_path: Path) -> None:
    torch.manual_seed(1)
    snapshot = tmp_path / "snapshot"
    for member in MEMBERS:
        model = timm.create_model(member.architecture, num_classes=3)
        export_member(model, member.architecture, INPUT, snapshot / member.name)
    training, held_back = _films(tmp_path / "films", 0, 12), _films(tmp_path / "films", 500, 8)
    config, figures = calibrate(snapshot, MEMBERS, INPUT, training, held_back, held_back_fold=3, version="9.9.9")

    assert set(config.admission.max_distance) == {THUMBNAIL, *(m.name for m in MEMBERS)}
    assert figures["films"] == 24
    assert config.held_back_fold == 3
    assert 0.05 < config.admission.min_upright < 1
    assert set(config.prediction_set.thresholds) == set(CLASS_NAMES)
    assert 0 <= config.agreement.max_total_variation <= 1
    assert set(figures["coverage_cross_fitted_of"]) == set(CLASS_NAMES)
    assert figures["nll_before"] >= figures["nll_cross_fitted"] - 0.2

    pneumonet = PneumoNet.from_pretrained(snapshot, device="cpu")
    assert pneumonet.info.version == "9.9.9"
    finding = pneumonet.predict(held_back[0])
    assert finding.admission.accepted
    noise = torch.randint(0, 255, (224, 224), dtype=torch.uint8).numpy()
    forced = pneumonet.predict(encoded(noise), force=True)
    assert [reason.code for reason in forced.admission.reasons] == ["unlike_chest_films"]


def test_exported_weights_are_half_precision_and_timm_s_form(tmp_path: Path) -> None:
    model = timm.create_model("test_convnext", num_classes=3)
    export_member(model, "test_convnext", INPUT, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["architecture"], config["num_classes"]) == ("test_convnext", 3)
    assert config["pretrained_cfg"]["input_size"] == [3, 96, 96]
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor.half().float() if tensor.is_floating_point() else tensor)


def test_a_weight_beyond_half_precision_is_an_error_not_an_infinity(tmp_path: Path) -> None:
    model = timm.create_model("test_convnext", num_classes=3)
    model.head.fc.bias.data[0] = 1e6
    with pytest.raises(ValueError, match="float16"):
        export_member(model, "test_convnext", INPUT, tmp_path)
