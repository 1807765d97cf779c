"""Admission: each reason has a picture that earns it, and a distance that is worked out independently."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import save_file

from pneumonet.admission import (
    THUMBNAIL,
    AdmissionCheck,
    detail,
    header_reasons,
    pixel_reasons,
)
from pneumonet.errors import SnapshotError
from pneumonet.feature_space import FeatureSpace, load_spaces, save_spaces
from pneumonet.presentation import PRESENTATIONS, PresentationClassifier, thumbnail
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AdmissionConfig
from tests.support.films import phantom
from tests.support.snapshots import any_presentation, phantom_presentation

CONFIG = AdmissionConfig(
    min_side=64,
    max_aspect=3.0,
    min_contrast=0.03,
    min_detail=0.05,
    max_colourfulness=0.08,
    min_upright=0.4,
    presentation_file="presentation.safetensors",
    features_file="admission.safetensors",
    max_distance={THUMBNAIL: 1.5},
)


def _film(pixels: np.ndarray, **attributes: object) -> Radiograph:
    return Radiograph(np.asarray(pixels, dtype=np.float32), "PNG", **attributes)  # type: ignore[arg-type]


def _chest() -> np.ndarray:
    return phantom(200, 180).astype(np.float32) / 255


def _page() -> np.ndarray:
    page = Image.new("L", (300, 400), 255)
    draw = ImageDraw.Draw(page)
    for line in range(20, 380, 18):
        draw.text((20, line), "Discharge summary, page one of two, continued", fill=0)
    return np.asarray(page, dtype=np.float32) / 255


@pytest.mark.parametrize(
    ("film", "code"),
    [
        (_film(np.zeros((200, 200))), "blank"),
        (_film(np.full((200, 200), 1.0)), "blank"),
        (_film(_chest()[:40, :40]), "too_small"),
        (_film(np.tile(_chest(), (1, 5))), "extreme_aspect"),
        (_film(np.tile(np.linspace(0, 1, 200), (200, 1))), "featureless"),
        (_film(_chest(), colourfulness=0.3), "colourful"),
        (_film(_page()), "text_page"),
    ],
    ids=["black", "white", "tiny", "strip", "shade", "colour", "page"],
)
def test_pixels_that_are_no_chest_film_earn_their_reason(film: Radiograph, code: str) -> None:
    assert code in [reason.code for reason in pixel_reasons(film, CONFIG)]


def test_a_chest_like_picture_earns_none() -> None:
    assert pixel_reasons(_film(_chest()), CONFIG) == []
    assert pixel_reasons(_film(_chest() * 0.3 + 0.1), CONFIG) == []


@pytest.mark.parametrize(
    ("attributes", "codes"),
    [
        ({"modality": "CT"}, ["wrong_modality"]),
        ({"modality": "MR", "body_part": "HEAD"}, ["wrong_modality", "wrong_body_part"]),
        ({"modality": "DX", "body_part": "HAND"}, ["wrong_body_part"]),
        ({"modality": "CR", "body_part": "CHEST", "view_position": "LL"}, ["lateral_view"]),
        ({"modality": "CR", "body_part": "chest", "view_position": "LATERAL"}, ["lateral_view"]),
        *(
            ({"view_position": view}, ["lateral_view"])
            for view in ("LEFT LATERAL", "Lateral Left", "LLO", "RAO", "OBLIQUE", "LLD", "DECUBITUS", "AP LORDOTIC")
        ),
        *(({"view_position": view}, []) for view in ("PA", "ap ", "AP SUPINE", "PORTABLE", "FRONTAL", "")),
        ({"modality": "DX", "body_part": "CHEST", "view_position": "AP"}, []),
        ({"modality": "CR", "body_part": "PORT CHEST"}, []),
        ({"modality": "", "body_part": ""}, []),
        ({}, []),
    ],
    ids=str,
)
def test_a_header_that_contradicts_a_frontal_chest_film_is_a_reason(attributes: dict, codes: list[str]) -> None:
    assert [reason.code for reason in header_reasons(_film(_chest(), **attributes))] == codes


def test_distance_is_the_mahalanobis_distance_of_the_model_s_own_covariance() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    space = FeatureSpace.fit(features.astype(np.float32), 2)
    covariance = space.components.T @ np.diag(space.deviations**2) @ space.components
    covariance += space.rest**2 * (np.eye(6) - space.components.T @ space.components)
    points = rng.normal(size=(10, 6)).astype(np.float32) * 5
    centred = points - space.mean
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred) / 6)
    np.testing.assert_allclose(space.distance(points), expected, rtol=1e-3)


@pytest.fixture(scope="module")
def phantom_check() -> AdmissionCheck:
    """Admission that has learnt what phantoms look like, as calibration learns it of films."""
    films = [phantom(200, 180, (0.3 + 0.01 * s, 0.3), seed=s) for s in range(40)]
    thumbnails = np.stack([thumbnail(film.astype(np.float32) / 255) for film in films])
    space = FeatureSpace.fit(thumbnails, 8)
    limit = float(space.distance(thumbnails).max()) * 10
    config = AdmissionConfig(**{**vars(CONFIG), "max_distance": {THUMBNAIL: limit}})
    return AdmissionCheck(config, phantom_presentation(), {THUMBNAIL: space}, {})


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda film: film, None),
        (lambda film: film[:, ::-1], None),
        (lambda film: film[::-1], "upside_down"),
        (lambda film: film[::-1, ::-1], "upside_down"),
        (lambda film: np.rot90(film, 1), "on_its_side"),
        (lambda film: np.rot90(film, -1), "on_its_side"),
        (lambda film: 1 - film, "inverted"),
        (lambda film: np.hstack([film, film]), "several_pictures"),
        (lambda film: np.vstack([film, film]), "several_pictures"),
    ],
    ids=["upright", "left for right", "mirrored", "turned over", "left", "right", "negative", "twice", "twice, below"],
)
def test_a_chest_shown_wrongly_is_refused_with_what_is_wrong(
    phantom_check: AdmissionCheck, spoil: Callable[[np.ndarray], np.ndarray], code: str | None
) -> None:
    film = _film(np.ascontiguousarray(spoil(_chest())))
    assert [reason.code for reason in phantom_check.first_look(film).reasons] == ([code] if code else [])


def test_what_no_turning_makes_a_chest_is_said_to_be_unlike_one(phantom_check: AdmissionCheck) -> None:
    y, x = np.mgrid[0:200, 0:200] / 25
    waves = _film(0.5 + 0.5 * np.sin(x * y) * np.cos(3 * x))
    assert [reason.code for reason in phantom_check.first_look(waves).reasons] == ["unlike_chest_films"]


@pytest.mark.parametrize("way", ["NEAREST", "BILINEAR", "BICUBIC", "LANCZOS"])
@pytest.mark.parametrize("side", [150, 224, 512, 1500])
def test_a_picture_blown_up_from_32_pixels_is_refused(way: str, side: int) -> None:
    tiny = Image.fromarray(phantom(300, 260)).resize((32, 32), Image.Resampling.BICUBIC)
    blown_up = np.asarray(tiny.resize((side, side), Image.Resampling[way]), dtype=np.float32) / 255
    assert [reason.code for reason in pixel_reasons(_film(blown_up), CONFIG)] == ["featureless"]


@pytest.mark.parametrize("share", [0.06, 0.12])
def test_a_film_blurred_beyond_use_is_refused(share: float) -> None:
    blurred = cv2.GaussianBlur(phantom(400, 400), (0, 0), 400 * share).astype(np.float32) / 255
    assert [reason.code for reason in pixel_reasons(_film(blurred), CONFIG)] == ["featureless"]


@pytest.mark.parametrize("size", [(224, 224), (2000, 1700), (90, 64)])
def test_detail_is_no_matter_of_size(size: tuple[int, int]) -> None:
    assert detail(_film(phantom(*size).astype(np.float32) / 255)) > 2 * CONFIG.min_detail


def test_presentations_come_back_as_they_were_written(tmp_path: Path) -> None:
    classifier, path = phantom_presentation(), tmp_path / "presentation.safetensors"
    classifier.save(path)
    small = thumbnail(_chest())[None]
    np.testing.assert_allclose(
        PresentationClassifier.load(path).probabilities(small), classifier.probabilities(small), rtol=1e-5
    )


@pytest.mark.parametrize("damage", ["missing", "cut", "shape", "nan"])
def test_a_presentation_file_that_lies_is_a_damaged_snapshot(tmp_path: Path, damage: str) -> None:
    path, weight = tmp_path / "presentation.safetensors", np.zeros((len(PRESENTATIONS), 1024), np.float32)
    if damage != "missing":
        weight = weight[:3] if damage == "shape" else weight + (np.nan if damage == "nan" else 0)
        save_file({"weight": weight, "bias": np.zeros(len(weight), np.float32)}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(SnapshotError, match="presentation"):
        PresentationClassifier.load(path)


def test_training_films_lie_about_one_away_and_strangers_far() -> None:
    rng = np.random.default_rng(2)
    known = rng.normal(size=(2000, 20)).astype(np.float32)
    space = FeatureSpace.fit(known, 8)
    assert np.sqrt((space.distance(known) ** 2).mean()) == pytest.approx(1, abs=0.05)
    assert space.distance(known[:1] + 10)[0] > 5


def test_the_distance_decides_and_its_reason_is_given() -> None:
    chests = np.stack([thumbnail(phantom(200, 180, seed=s).astype(np.float32) / 255) for s in range(30)])
    spaces = {THUMBNAIL: FeatureSpace.fit(chests, 8)}
    limit = float(spaces[THUMBNAIL].distance(chests).max()) * 1.5
    config = AdmissionConfig(**{**vars(CONFIG), "max_distance": {THUMBNAIL: limit}, "min_upright": 0.0})
    check = AdmissionCheck(config, any_presentation(), spaces, {})
    chest = _film(_chest())
    assert check.decide(check.first_look(chest), {}).accepted
    noise = _film(np.random.default_rng(0).random((200, 180)))
    refused = check.decide(check.first_look(noise), {})
    assert not refused.accepted
    assert [reason.code for reason in refused.reasons] == ["unlike_chest_films"]


def test_thumbnail_does_not_count_exposure() -> None:
    chest = _chest() * 0.5 + 0.1
    np.testing.assert_allclose(thumbnail(chest), thumbnail(chest * 0.5 + 0.2), atol=1e-3)


def test_spaces_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "spaces.safetensors"
    space = FeatureSpace.fit(np.random.default_rng(3).normal(size=(50, 12)).astype(np.float32), 4)
    save_spaces({"a.b": space}, path)
    points = np.random.default_rng(4).normal(size=(5, 12)).astype(np.float32)
    np.testing.assert_allclose(load_spaces(path)["a.b"].distance(points), space.distance(points), rtol=1e-6)


def test_a_threshold_without_a_space_is_a_damaged_snapshot() -> None:
    with pytest.raises(SnapshotError, match="thumbnail"):
        AdmissionCheck(CONFIG, any_presentation(), {}, {})
