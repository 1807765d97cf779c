"""Figures by what a film's file is like: traits measured from real files, groups counted by hand."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from pneumonet.evaluation import Answer, answer_films
from pneumonet.evaluation.subgroups import subgroups
from pneumonet.evaluation.traits import Traits
from pneumonet.model import PneumoNet
from pneumonet.reading import read_radiograph
from pneumonet.taxonomy import CLASS_NAMES, NORMAL
from tests.support.films import phantom

NORMAL_INDEX = CLASS_NAMES.index(NORMAL)


def _traits(path: Path) -> Traits:
    return Traits.of(path, read_radiograph(path))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_traits_are_those_of_the_file(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "film.png"
    Image.fromarray(phantom(300, 400)).convert(mode).save(path)
    traits = _traits(path)
    assert (traits.mode, traits.width, traits.height) == (mode, 400, 300)


def test_a_dicom_file_has_its_format_for_a_mode() -> None:
    assert _traits(Path(str(get_testdata_file("CT_small.dcm")))).mode == "DICOM"


def test_sharpness_is_the_laplacian_at_one_size(tmp_path: Path) -> None:
    path, blurred = tmp_path / "film.png", tmp_path / "blurred.png"
    film = np.random.default_rng(1).integers(0, 256, (224, 224)).astype(np.uint8)
    film[0, 0], film[0, 1] = 0, 255  # the whole range, so that reading stretches nothing
    Image.fromarray(film).save(path)
    grey = film.astype(float)
    by_hand = np.abs(grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]).mean()
    assert _traits(path).sharpness == pytest.approx(by_hand, rel=1e-4)
    Image.fromarray(cv2.GaussianBlur(film, (0, 0), 2)).save(blurred)
    assert _traits(blurred).sharpness < by_hand / 3


def test_films_are_answered_with_their_traits(tiny_model: PneumoNet, tmp_path: Path) -> None:
    path = tmp_path / "NORMAL" / "IM-0001-0001.png"
    path.parent.mkdir()
    Image.fromarray(phantom(120, 150)).save(path)
    (answer,), errors = answer_films(tiny_model, [path], tmp_path, progress=False)
    assert not errors
    assert answer.traits == _traits(path)


def _answers() -> list[Answer]:
    """24 small grey films of 24 patients, right; 12 large colour films of 4 patients, half wrong; 3 of a rare mode."""
    answers = []
    for i in range(39):
        large, rare = 24 <= i < 36, i >= 36
        label = i % 3
        said = (label + 1) % 3 if large and i % 2 else label
        answers.append(
            Answer(
                file=f"{i}.png",
                patient=f"p{i % 4}" if large else f"q{i}",
                label_index=label,
                probabilities=tuple(0.8 if c == said else 0.1 for c in range(3)),
                traits=Traits(
                    "P" if rare else "RGB" if large else "L", 2000 if large else 500, 1000 if large else 500, i
                ),
            )
        )
    return answers


def _subgroups(answers: list[Answer]) -> dict:
    probabilities = np.array([a.probabilities for a in answers])
    labels = np.array([a.label_index for a in answers])
    return subgroups(answers, probabilities, labels, resamples=20, seed=1)


def test_groups_are_counted_and_scored_apart() -> None:
    groups = _subgroups(_answers())
    assert list(groups["image mode"]) == ["L", "RGB"]  # three films of mode P are too few
    assert groups["image mode"]["L"]["n"] == 24
    assert groups["image mode"]["L"]["accuracy"] == 1
    assert groups["image mode"]["RGB"]["accuracy"] == 0.5
    assert groups["image mode"]["RGB"]["n_normal"] == 4
    assert groups["image mode"]["RGB"]["patients"] == 4
    assert groups["films of the patient"]["1"]["n"] == 27
    assert groups["films of the patient"]["2 or 3"]["n"] == 12
    assert groups["megapixels"]["1.5 and over"]["n"] == 12
    assert groups["width over height"]["under 1.2"]["n"] == 27
    assert [group["n"] for group in groups["sharpness"].values()] == [13, 13, 13]
    low, high = groups["image mode"]["RGB"]["intervals"]["accuracy"]
    assert low <= 0.5 <= high


def test_a_factor_that_divides_nothing_and_films_without_traits_are_left_out() -> None:
    small = [answer for answer in _answers() if answer.traits and answer.traits.mode == "L"]
    assert _subgroups(small) == {}  # and thirds of 24 films are too few
    bare = [Answer(a.file, a.patient, a.label_index, a.probabilities) for a in _answers()]
    assert list(_subgroups(bare)) == ["films of the patient"]
