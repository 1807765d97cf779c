"""The commands that measure admission and saliency, from phantoms to their JSON."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pneumonet.evaluation import strangers
from pneumonet.training import card_measures
from scripts import compare_engines, measure_admission, measure_saliency
from tests.support.films import encoded, phantom
from tests.support.snapshots import phantom_presentation, write_tiny_snapshot

# Both patients are in fold 0 of the committed split.
HELD_BACK = "NORMAL/IM-0129-0001.png", "NORMAL/IM-0129-0002.png"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot that knows how phantoms are presented, and folders of films, adults and others."""
    folder = tmp_path_factory.mktemp("measuring")
    write_tiny_snapshot(folder / "snapshot", presentation=phantom_presentation())
    for seed, name in enumerate((*HELD_BACK, "adult/NORMAL/1_a.png", "adult/PNEUMONIA/2_a.png")):
        path = folder / name if name.startswith("adult") else folder / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(phantom(seed=seed)))
    (folder / "blood_smear").mkdir()
    (folder / "blood_smear" / "a.png").write_bytes(encoded(np.full((90, 90), 200, np.uint8)))
    (folder / "blood_smear" / "README.md").write_text("no picture")
    return folder


def _report(command: Any, place: Path, *options: str) -> dict[str, Any]:
    out = place / "out.json"
    known = ["--model", str(place / "snapshot"), "--data", str(place / "films"), "--json", str(out)]
    assert command.main([*known, *options]) == 0
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_admission_is_measured_by_kind(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--adult",
        str(place / "adult"),
        "--strangers",
        str(place / "blood_smear"),
        "--films",
        "2",
        "--count",
        "6",
    ]
    report = _report(measure_admission, place, *options)
    assert report["pass"]["held_back"] == {"n": 2, "admitted": 2, "share": 1.0, "reasons": {}}
    assert report["pass"]["adult"]["n"] == 2
    kinds = report["strangers"]
    assert kinds["blood smear"] == {"n": 1, "admitted": 0, "share": 0.0, "reasons": {"blank": 1}}
    for kind, code in (
        ("film inverted", "inverted"), ("film upside down", "upside_down"), ("blank frame", "blank"),
        ("DICOM tagged CT", "wrong_modality"), ("DICOM tagged HAND", "wrong_body_part"),
        ("DICOM tagged LATERAL", "lateral_view"), ("film of 32 x 32 blown up", "featureless"),
    ):  # fmt: skip
        assert set(kinds[kind]["reasons"]) == {code}, kind
    assert report["refused"]["n"] == sum(row["n"] for kind, row in kinds.items() if not kind.startswith("DICOM"))
    assert "Strangers refused" in capsys.readouterr().out
    assert card_measures.strangers({"admission": report}).startswith(f"Of {report['refused']['n']} pictures")


def test_saliency_is_measured_by_source(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _report(measure_saliency, place, "--films", "1", "--marked-films", "2")
    sources = {"ensemble", "convnext_tiny", "efficientnetv2_s"}
    assert (report["films"], report["marked_films"]) == (1, 2)
    assert set(report["faithfulness"]) == set(report["frame"]) == sources
    assert set(report["randomisation"]) == sources
    assert len(report["marks"]["by_mark"]) == 12
    assert 0 <= report["marks"]["same_label"] <= 1
    assert "insertion" in capsys.readouterr().out
    assert "Deletion and insertion" in card_measures.saliency({"saliency": report})


def test_an_engine_that_changes_answers_stops_whoever_makes_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PNEUMONET_CACHE_DIR", str(place / "cache"))
    report = _report(compare_engines, place, "--precision", "float32")
    assert report["films"] == 2
    assert report["engines"]["openvino, float32"]["keeps_the_answers"] is True
    assert report["command"].startswith("python scripts/compare_engines.py")
    assert "keeps_the_answers" in capsys.readouterr().out
    monkeypatch.setattr(compare_engines, "LEAST_AGREEMENT", 1.01)
    films = ["--model", str(place / "snapshot"), "--data", str(place / "films")]
    assert compare_engines.main([*films, "--precision", "float32"]) == 1


class TestStrangers:
    def test_each_kind_has_its_count_and_a_seed_draws_the_same(self) -> None:
        pictures = list(strangers.drawn(2, seed=3))
        again = list(strangers.drawn(2, seed=3))
        assert set(Counter(kind for kind, _ in pictures).values()) == {2}
        for (kind, picture), (_, same) in zip(pictures, again, strict=True):
            assert picture.dtype == np.uint8, kind
            assert picture.ndim == 2, kind
            np.testing.assert_array_equal(picture, same)

    def test_photographs_come_whole_in_colour_and_grey_and_as_crops(self) -> None:
        kinds = Counter(kind for kind, _ in strangers.photographs(2, seed=1))
        assert kinds["photograph in grey"] >= 20
        assert kinds["photograph in colour"] == kinds["photograph in grey"]
        assert kinds["photograph in grey, cropped"] == 2 * kinds["photograph in grey"]

    def test_a_qr_code_can_be_read_by_what_reads_qr_codes(self) -> None:
        code = dict(strangers.drawn(1, seed=2))["QR code"]
        text, _, _ = cv2.QRCodeDetector().detectAndDecode(cv2.copyMakeBorder(code, 40, 40, 40, 40, 0, value=255))
        assert text.isdigit()

    def test_a_film_is_spoilt_as_it_is_said_to_be(self) -> None:
        film = phantom(200, 180)
        ways = dict(strangers.spoilt([film], seed=1))
        np.testing.assert_array_equal(ways["film inverted"], 255 - film)
        np.testing.assert_array_equal(ways["film upside down"], film[::-1, ::-1])
        assert ways["film on its left side"].shape == (180, 200)
        assert ways["film pasted twice"].shape == (200, 360)
        assert ways["film cut to a corner"].shape == (66, 60)
        assert np.abs(np.diff(ways["film blurred beyond use"].astype(int))).max() < 12
