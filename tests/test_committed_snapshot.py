"""The weights that the app starts with: what a user of `make run` meets. Figures of merit are the card's business."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pneumonet.errors import AdmissionError
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_radiograph
from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import SnapshotConfig, verify_files
from pneumonet.training.films import split_films
from pneumonet.web.examples import FOLDER

SYNTHETIC = sorted(FOLDER.glob("synthetic_*.png"))


@pytest.fixture(scope="module")
def model() -> PneumoNet:
    return PneumoNet.from_pretrained(DEFAULT_SNAPSHOT, device="cpu")


def _as_film(image: Image.Image) -> Radiograph:
    return Radiograph(np.asarray(image.convert("L"), dtype=np.float32) / 255, "PNG")


def test_every_file_is_whole_and_nothing_else_lies_there() -> None:
    config = SnapshotConfig.read(DEFAULT_SNAPSHOT)
    verify_files(DEFAULT_SNAPSHOT, config)
    found = {str(path.relative_to(DEFAULT_SNAPSHOT)) for path in DEFAULT_SNAPSHOT.rglob("*") if path.is_file()}
    assert found == {"README.md", "config.json", "metrics.json", "figures/reliability.png", *config.files}


def test_examples_are_admitted_but_for_the_one_that_says_so(model: PneumoNet) -> None:
    listed = json.loads((FOLDER / "examples.json").read_text())
    assert len(SYNTHETIC) == len(listed) - 1 >= 3
    for example in listed:
        if "refused" in example["title"]:
            with pytest.raises(AdmissionError):
                model.predict(FOLDER / example["file"])
        else:
            assert model.predict(FOLDER / example["file"]).admission.accepted


@pytest.mark.parametrize("example", SYNTHETIC, ids=lambda path: path.stem)
@pytest.mark.parametrize("corner", ["top-left", "top-right", "bottom-left", "bottom-right"])
def test_a_side_marker_does_not_carry_the_answer(model: PneumoNet, example: Path, corner: str) -> None:
    film = Image.open(example).convert("L")
    x = 18 if "left" in corner else film.width - 48
    y = 14 if "top" in corner else film.height - 52
    marked = film.copy()
    ImageDraw.Draw(marked).text((x, y), "R", fill=255, font=ImageFont.load_default(36))
    plain, answer = model.predict(_as_film(film)), model.predict(_as_film(marked))
    shift = max(abs(plain.probabilities[name] - answer.probabilities[name]) for name in plain.probabilities)
    assert shift < 0.1
    peak_y, peak_x = np.unravel_index(answer.saliency_map().argmax(), marked.size[::-1])
    assert not (x <= peak_x <= x + 30 and y <= peak_y <= y + 38)


@pytest.mark.parametrize("example", SYNTHETIC, ids=lambda path: path.stem)
@pytest.mark.parametrize("shift", [(3, 0), (0, 3), (-3, -3)], ids=str)
def test_a_shift_of_a_few_pixels_changes_little(model: PneumoNet, example: Path, shift: tuple[int, int]) -> None:
    film = read_radiograph(example)
    moved = Radiograph(np.roll(film.pixels, shift, (0, 1)), "PNG")
    plain, answer = (model.predict(f, saliency=False).probabilities for f in (film, moved))
    assert max(abs(plain[name] - answer[name]) for name in plain) < 0.1


@pytest.mark.parametrize("example", SYNTHETIC, ids=lambda path: path.stem)
def test_a_sixteen_bit_copy_answers_as_the_eight_bit_film(model: PneumoNet, example: Path, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(example).convert("L"))
    copy = tmp_path / "copy.png"
    Image.fromarray(pixels.astype(np.uint16) * 257).save(copy)
    plain, answer = model.predict(example, saliency=False), model.predict(copy, saliency=False)
    assert answer.probabilities == pytest.approx(plain.probabilities, abs=1e-4)


def _strangers() -> dict[str, Image.Image]:
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:400, 0:400]
    scene = Image.new("L", (400, 300), 210)
    draw = ImageDraw.Draw(scene)
    draw.rectangle((0, 200, 400, 300), fill=90)
    draw.polygon([(120, 200), (200, 90), (280, 200)], fill=150)
    draw.ellipse((310, 30, 360, 80), fill=250)
    hand = Image.new("L", (300, 400), 15)
    draw = ImageDraw.Draw(hand)
    draw.ellipse((70, 200, 230, 390), fill=150)
    for i in range(5):
        draw.rounded_rectangle((60 + i * 38, 40 + abs(i - 2) * 25, 86 + i * 38, 250), 12, fill=190)
    return {
        "noise": Image.fromarray(rng.integers(0, 256, (400, 400), dtype=np.uint8)),
        "gradient": Image.fromarray((x * 255 / 399).astype(np.uint8)),
        "checkerboard": Image.fromarray((((x // 40 + y // 40) % 2) * 255).astype(np.uint8)),
        "scene": scene,
        "hand": hand,
        "sideways chest": Image.open(SYNTHETIC[0]).convert("L").rotate(90),
        "upside-down chest": Image.open(SYNTHETIC[0]).convert("L").rotate(180),
        "mirrored chest": ImageOps.flip(Image.open(SYNTHETIC[1]).convert("L")),
        "corner of a chest": Image.open(SYNTHETIC[1]).convert("L").crop((0, 0, 170, 170)),
        "two chests": Image.fromarray(np.hstack([np.asarray(Image.open(SYNTHETIC[2]).convert("L"))] * 2)),
        "chest of 32 pixels": Image.open(SYNTHETIC[2]).convert("L").resize((32, 32)).resize((512, 512)),
    }


@pytest.mark.parametrize("name", _strangers())
def test_pictures_that_are_no_upright_chest_film_are_refused(model: PneumoNet, name: str) -> None:
    with pytest.raises(AdmissionError) as refused:
        model.predict(_as_film(_strangers()[name]))
    assert refused.value.reasons


@pytest.mark.parametrize("example", SYNTHETIC, ids=lambda path: path.stem)
def test_a_negative_is_recognised_and_never_answered(model: PneumoNet, example: Path) -> None:
    with pytest.raises(AdmissionError) as refused:
        model.predict(_as_film(ImageOps.invert(Image.open(example).convert("L"))))
    assert [reason.code for reason in refused.value.reasons] == ["inverted"]


@pytest.mark.data
def test_micrographs_are_refused(model: PneumoNet, shared_data: Path) -> None:
    for picture in sorted((shared_data / "not_chest_xray" / "blood_smear").iterdir()):
        with pytest.raises(AdmissionError):
            model.predict(picture)


@pytest.mark.data
def test_nearly_every_held_back_chest_film_is_admitted(model: PneumoNet, shared_data: Path) -> None:
    _, held_back = split_films(shared_data / "chest_xray" / "train", held_back_fold=0)
    films = held_back[::4]
    answers = model.predict_batch([read_radiograph(film) for film in films], saliency=False)
    refused = sum(isinstance(answer, AdmissionError) for answer in answers)
    assert refused <= 0.02 * len(films)
