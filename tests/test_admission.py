"""Admission: each reason has a picture that earns it, and a distance that is worked out independently."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pneumonet.admission import (
    THUMBNAIL,
    AdmissionCheck,
    FeatureSpace,
    header_reasons,
    load_spaces,
    pixel_reasons,
    save_spaces,
    thumbnail,
)
from pneumonet.errors import SnapshotError
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AdmissionConfig
from tests.support.films import phantom

CONFIG = AdmissionConfig(
    min_side=64,
    max_aspect=3.0,
    min_contrast=0.03,
    min_detail=0.05,
    max_colourfulness=0.08,
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
        (_film(1 - _chest()), "inverted"),
    ],
    ids=["black", "white", "tiny", "strip", "shade", "colour", "page", "negative"],
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


def test_training_films_lie_about_one_away_and_strangers_far() -> None:
    rng = np.random.default_rng(2)
    known = rng.normal(size=(2000, 20)).astype(np.float32)
    space = FeatureSpace.fit(known, 8)
    assert np.sqrt((space.distance(known) ** 2).mean()) == pytest.approx(1, abs=0.05)
    assert space.distance(known[:1] + 10)[0] > 5


def test_the_distance_decides_and_its_reason_is_given() -> None:
    chests = np.stack([thumbnail(_film(phantom(200, 180, seed=s).astype(np.float32) / 255)) for s in range(30)])
    spaces = {THUMBNAIL: FeatureSpace.fit(chests, 8)}
    limit = float(spaces[THUMBNAIL].distance(chests).max()) * 1.5
    check = AdmissionCheck(AdmissionConfig(**{**vars(CONFIG), "max_distance": {THUMBNAIL: limit}}), spaces, {})
    chest = _film(_chest())
    assert check.decide(check.first_look(chest), chest, {}).accepted
    noise = _film(np.random.default_rng(0).random((200, 180)))
    refused = check.decide(check.first_look(noise), noise, {})
    assert not refused.accepted
    assert [reason.code for reason in refused.reasons] == ["unlike_chest_films"]


def test_thumbnail_does_not_count_exposure() -> None:
    chest = _chest() * 0.5 + 0.1
    np.testing.assert_allclose(thumbnail(_film(chest)), thumbnail(_film(chest * 0.5 + 0.2)), atol=1e-3)


def test_spaces_come_back_as_they_were_written(tmp_path: object) -> None:
    path = tmp_path / "spaces.safetensors"  # type: ignore[operator]
    space = FeatureSpace.fit(np.random.default_rng(3).normal(size=(50, 12)).astype(np.float32), 4)
    save_spaces({"a.b": space}, path)
    points = np.random.default_rng(4).normal(size=(5, 12)).astype(np.float32)
    np.testing.assert_allclose(load_spaces(path)["a.b"].distance(points), space.distance(points), rtol=1e-6)


def test_a_threshold_without_a_space_is_a_damaged_snapshot() -> None:
    with pytest.raises(SnapshotError, match="thumbnail"):
        AdmissionCheck(CONFIG, {}, {})
