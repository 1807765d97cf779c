"""One film's row, answered, refused or failed; and the figures of many."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pneumonet.batch.figures import figures_of
from pneumonet.batch.labels import read_labels
from pneumonet.batch.parts import Parts
from pneumonet.batch.schema import SCHEMA, table_of
from pneumonet.batch.sources import find_films
from pneumonet.batch.worker import answer, answer_group
from pneumonet.errors import ConfigError
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.model import PneumoNet
from pneumonet.reading import ReadingLimits
from pneumonet.taxonomy import CLASS_NAMES
from scripts import evaluate
from tests.batch.conftest import film
from tests.support.films import encoded, phantom
from tests.web.conftest import dicom

PUBLISHED = (
    "NORMAL/IM-0115-0001.png", "NORMAL/NORMAL2-IM-0400-0001.png", "PNEUMONIA/person1_bacteria_1.png",
    "PNEUMONIA/person1_virus_2.png", "PNEUMONIA/person2_bacteria_3.png", "PNEUMONIA/person3_bacteria_4.png",
)  # fmt: skip


class Broken(SimpleNamespace):
    limits, info = ReadingLimits(), SimpleNamespace(revision="local-1")

    def predict(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("nobody foresaw this")


def test_an_answer_s_numbers_are_those_of_every_other_door(tmp_path: Path, tiny_model: PneumoNet) -> None:
    path = tmp_path / "film.jpg"
    path.write_bytes(film(1))
    row = answer(tiny_model, "as given.jpg", str(path), force=False)
    told = tiny_model.predict(path).to_dict()
    assert (row["path"], row["error_code"], row["admitted"]) == ("as given.jpg", None, True)
    probabilities = {
        name: row[column] for name, column in zip(CLASS_NAMES, ("p_bacterial", "p_normal", "p_viral"), strict=True)
    }
    assert probabilities == told["probabilities"]
    assert row["label"] == max(probabilities, key=lambda name: probabilities[name])
    assert row["confidence"] == max(probabilities.values())
    assert (row["prediction_set"], row["risk"]) == (told["prediction_set"], told["risk_level"])
    assert row["model_revision"] == tiny_model.info.revision


def test_a_refused_film_names_the_reasons_and_is_answered_by_force(tmp_path: Path, tiny_model: PneumoNet) -> None:
    path = tmp_path / "blank.png"
    path.write_bytes(encoded(np.full((300, 260), 90, dtype=np.uint8)))
    refused, forced = (answer(tiny_model, "blank.png", str(path), force=force) for force in (False, True))
    assert (refused["error_code"], refused["admitted"], refused["label"]) == ("not_admitted", False, None)
    assert refused["admission_reasons"] == forced["admission_reasons"] != []
    assert (forced["error_code"], forced["admitted"]) == (None, False)
    assert forced["label"] in CLASS_NAMES
    assert refused["sha256"] == forced["sha256"]


def test_what_nobody_foresaw_is_a_row_and_the_log_names_no_film(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "Doe^Jane.jpg"
    path.write_bytes(film(1))
    with caplog.at_level(logging.ERROR):
        row = answer(cast(PneumoNet, Broken()), "Doe^Jane.jpg", str(path), force=False)
    assert row["error_code"] == "internal_error"
    assert "nobody foresaw this" not in row["error"]
    assert "nobody foresaw this" in caplog.text
    assert "Doe" not in caplog.text
    assert row["sha256"] in caplog.text


def _group(folder: Path, films: dict[str, bytes]) -> list[tuple[str, str]]:
    for name, data in films.items():
        (folder / name).write_bytes(data)
    return [(name, str(folder / name)) for name in (*films, "missing.png")]


def test_films_that_share_a_pass_have_the_rows_that_they_have_alone(
    tmp_path: Path, tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = {"a.jpg": film(1), "empty.jpg": b"", "blank.png": encoded(np.full((300, 260), 90, np.uint8)), "b": film(2)}
    group = _group(tmp_path, films)
    alone = [answer(tiny_model, path, place, force=False) for path, place in group]
    monkeypatch.delattr(PneumoNet, "predict")
    together = answer_group(tiny_model, group, force=False)
    assert [row["error_code"] for row in together] == [None, "empty_file", "not_admitted", None, "unreadable_image"]
    for row, expected in zip(together, alone, strict=True):
        numbers = [name for name, value in expected.items() if isinstance(value, float)]
        assert [row.pop(n) for n in numbers] == pytest.approx([expected.pop(n) for n in numbers], abs=2e-6)
        for member, own in zip(row.pop("members"), expected.pop("members"), strict=True):
            assert member == pytest.approx(own, abs=2e-6)
        assert row == expected


def test_films_whose_pass_fails_have_no_row_of_the_process_in_which_it_failed(
    tmp_path: Path, tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = _group(tmp_path, {f"{seed}.jpg": film(seed) for seed in range(2)})

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(PneumoNet, "predict_batch", fail)
    assert answer_group(tiny_model, group, force=False) == []
    assert [answer_group(tiny_model, [film], force=False)[0]["path"] for film in group] == [path for path, _ in group]


def test_every_row_has_the_schema_s_columns_and_survives_the_way_to_disk(tmp_path: Path, tiny_model: PneumoNet) -> None:
    films = {"good.jpg": film(1), "empty.jpg": b"", "blank.png": encoded(np.full((300, 260), 90, dtype=np.uint8))}
    for name, data in films.items():
        (tmp_path / name).write_bytes(data)
    rows = [answer(tiny_model, name, str(tmp_path / name), force=False) for name in (*films, "missing.png")]
    assert all(list(row) == SCHEMA.names for row in rows)
    assert table_of(json.loads(json.dumps(rows))).to_pylist() == rows


def test_nothing_of_a_patient_is_in_a_row(tmp_path: Path, tiny_model: PneumoNet) -> None:
    path = tmp_path / "film.dcm"
    path.write_bytes(dicom(phantom(), PatientAge="041Y", PatientID="4711"))
    row = answer(tiny_model, "film.dcm", str(path), force=False)
    assert row["error_code"] is None
    assert any("age outside" in warning for warning in row["warnings"])
    assert not [
        word
        for word in ("Doe", "41", "4711")
        if word
        in json.dumps(
            row | {"sha256": "", "members": []} | dict.fromkeys(("p_bacterial", "p_normal", "p_viral", "confidence"))
        )
    ]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for seed, name in enumerate(PUBLISHED):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(phantom(seed=seed, blob=(0.3 + 0.04 * seed, 0.3))))
    (tmp_path / "films" / "NORMAL" / "IM-0002-0001.png").write_text("not a picture")
    (tmp_path / "films" / "NORMAL" / "blank.png").write_bytes(encoded(np.full((300, 260), 90, dtype=np.uint8)))
    return tmp_path / "films"


def test_figures_are_to_the_letter_what_evaluate_prints(
    films: Path, tmp_path: Path, tiny_snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.main([str(films), "--model", str(tiny_snapshot), "--quiet"])
    printed = capsys.readouterr().out
    model = PneumoNet.from_pretrained(tiny_snapshot, engine="torch")
    source = find_films(str(films))
    parts = Parts(tmp_path / "out.parquet", "a job", {})
    parts.folder.mkdir()
    parts.write(table_of([answer(model, name, source.location(name), force=True) for name in source.names]))
    parts.merge(source.names)
    text = figures_of(parts.out, read_labels("folders", source), model.snapshot.config)
    told, by = text.splitlines(), "Patients are told by the films' names."
    assert by in told
    assert [line for line in told if line != by] == printed.splitlines()
    assert "7 films of 6 patients" in text
    assert "Unreadable, not counted: 1" in text


def test_labels_from_a_csv_are_those_of_the_folders(films: Path, tmp_path: Path) -> None:
    source = find_films(str(films))
    by_folder = read_labels("folders", source).classes
    words = {index: name.lower() for index, name in enumerate(CLASS_NAMES)}
    labels = tmp_path / "labels.csv"
    labels.write_text("site,label,path\n" + "".join(f"x,{words[i]},{path}\n" for path, i in by_folder.items()))
    assert read_labels(str(labels), source).classes == by_folder
    labels.write_text("path,label\nNORMAL/blank.png,pneumonia\nnot/here.png,NORMAL\n")
    assert read_labels(str(labels), source).classes == {"NORMAL/blank.png": CAUSE_NOT_STATED}


def test_a_column_tells_the_patients_and_the_table_says_so(films: Path, tmp_path: Path, tiny_snapshot: Path) -> None:
    model, source = PneumoNet.from_pretrained(tiny_snapshot), find_films(str(films))
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,Patient\n" + "".join(f"{path},pneumonia,Doe\n" for path in PUBLISHED[:3]))
    parts = Parts(tmp_path / "out.parquet", "a job", {})
    parts.folder.mkdir()
    parts.write(table_of([answer(model, name, source.location(name), force=True) for name in source.names]))
    parts.merge(source.names)
    text = figures_of(parts.out, read_labels(str(labels), source), model.snapshot.config)
    assert "3 films of 1 patients" in text
    assert "Patients are told by the column patient of labels.csv." in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no file of labels"),
        ("path,class\na.png,NORMAL\n", "no column named label"),
        ("path,label\na.png,COVID\n", "without a label"),
        ("path,label\na.png\n", "without a label"),
        ("path,label\nnot/here.png,NORMAL\n", "None of the 8 films"),
        ("path,label,patient\nNORMAL/blank.png,NORMAL,\n", "without a patient"),
        ("path,label,patient\nNORMAL/blank.png,NORMAL\n", "without a patient"),
    ],
)
def test_labels_that_cannot_be_used_are_told_in_words(
    films: Path, tmp_path: Path, text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_labels(str(tmp_path / "labels.csv"), find_films(str(films)))
