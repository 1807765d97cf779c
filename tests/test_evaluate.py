"""The command `scripts/evaluate.py` from a folder of phantoms to its JSON, table and CSV."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pneumonet.model import PneumoNet
from pneumonet.taxonomy import CLASS_NAMES
from scripts import evaluate
from tests.support.films import encoded, phantom

TOP_KEYS = {
    "accuracy", "auroc_macro", "f1_macro", "ece", "brier", "binary", "per_class", "confusion", "class_names", "n",
    "patients", "intervals", "model", "data", "members", "best_weight", "refused", "errors", "command", "date",
    "prediction_set", "indeterminate",
}  # fmt: skip
PUBLISHED = (
    "NORMAL/IM-0115-0001.png", "NORMAL/NORMAL2-IM-0400-0001.png", "PNEUMONIA/person1_bacteria_1.png",
    "PNEUMONIA/person1_virus_2.png", "PNEUMONIA/person2_bacteria_3.png",
)  # fmt: skip


@pytest.fixture
def write_films(tmp_path: Path) -> Any:
    """A function that writes phantoms at paths below a folder, and returns the folder."""

    def write(*names: str) -> Path:
        for seed, name in enumerate(names):
            path = tmp_path / "films" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(phantom(seed=seed, blob=(0.3 + 0.04 * seed, 0.3))))
        return tmp_path / "films"

    return write


class TestCommand:
    def test_published_names(
        self, tiny_snapshot: Path, write_films: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, table = tmp_path / "out.json", tmp_path / "films.csv"
        arguments = [str(write_films(*PUBLISHED)), "--model", str(tiny_snapshot), f"--json={out}"]
        arguments += ["--predictions", str(table), "--resamples", "20", "--quiet"]
        assert evaluate.main(arguments) == 0
        report = json.loads(out.read_text())
        assert set(report) >= TOP_KEYS
        assert report["data"] == {
            "path": "films",
            "split": "all films",
            "n": {"BACTERIAL_PNEUMONIA": 2, "NORMAL": 2, "VIRAL_PNEUMONIA": 1},
        }
        assert (report["n"], report["patients"]) == (5, 4)
        assert [sum(row) for row in report["confusion"]] == [2, 2, 1]
        assert set(report["members"]) == {"convnext_tiny", "efficientnetv2_s"}
        assert report["model"]["version"] == "0.0.1"
        assert report["intervals"]["members.convnext_tiny.accuracy"] is not None
        assert str(tmp_path) not in out.read_text()
        assert str(tiny_snapshot) not in out.read_text()
        assert "/" not in report["command"].replace("scripts/", "")
        printed = capsys.readouterr().out
        assert "macro AUROC" in printed
        assert "5 films of 4 patients" in printed
        rows = list(csv.DictReader(table.open()))
        assert [row["file"] for row in rows] == sorted(PUBLISHED)
        assert sum(float(rows[0][name]) for name in CLASS_NAMES) == pytest.approx(1, abs=1e-5)

    def test_figures_are_of_what_predict_says(
        self, tiny_model: PneumoNet, tiny_snapshot: Path, write_films: Any, tmp_path: Path
    ) -> None:
        folder, table = write_films(*PUBLISHED), tmp_path / "films.csv"
        evaluate.main([str(folder), "--model", str(tiny_snapshot), "--predictions", str(table), "--quiet"])
        for row in csv.DictReader(table.open()):
            finding = tiny_model.predict(folder / row["file"], saliency=False)
            assert row["answer"] == finding.label
            assert float(row["NORMAL"]) == pytest.approx(finding.probabilities["NORMAL"], abs=1e-6)

    def test_a_folder_a_class(self, tiny_snapshot: Path, write_films: Any, tmp_path: Path) -> None:
        out = tmp_path / "out.json"
        folder = write_films(*(f"{name}/{i}_x.png" for name in CLASS_NAMES for i in range(2)))
        arguments = [str(folder), "--model", str(tiny_snapshot), "--json", str(out), "--resamples", "20", "--quiet"]
        assert evaluate.main(arguments) == 0
        report = json.loads(out.read_text())
        assert report["data"]["n"] == dict.fromkeys(CLASS_NAMES, 2)
        assert report["patients"] == 2

    def test_adult_style_says_why_three_class_figures_are_missing(
        self, tiny_snapshot: Path, write_films: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out.json"
        folder = write_films("NORMAL/1_0.png", "NORMAL/2_0.png", "PNEUMONIA/3_0.png", "PNEUMONIA/3_1.png")
        arguments = [str(folder), "--model", str(tiny_snapshot), "--json", str(out), "--resamples", "20", "--quiet"]
        assert evaluate.main(arguments) == 0
        report = json.loads(out.read_text())
        assert report["data"]["n"] == {"NORMAL": 2, "PNEUMONIA": 2}
        assert report["binary"]["accuracy"] is not None
        assert report["accuracy"] is report["confusion"] is report["best_weight"] is report["intervals"]["ece"] is None
        assert report["prediction_set"]["coverage"] is None
        assert report["prediction_set"]["mean_size"] >= 1
        assert "state no cause" in report["notes"][0]
        assert "state no cause" in capsys.readouterr().out

    def test_unreadable_file_is_listed_and_makes_the_exit_code_1(
        self, tiny_snapshot: Path, write_films: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out, folder = tmp_path / "out.json", write_films(*PUBLISHED)
        (folder / "NORMAL" / "IM-0001-0001.png").write_bytes(b"no picture")
        arguments = [str(folder), "--model", str(tiny_snapshot), "--json", str(out), "--resamples", "20", "--quiet"]
        assert evaluate.main(arguments) == 1
        report = json.loads(out.read_text())
        assert report["errors"] == [{"file": "NORMAL/IM-0001-0001.png", "code": "unsupported_format"}]
        assert report["n"] == 5
        assert "NORMAL/IM-0001-0001.png: unsupported_format" in capsys.readouterr().out

    def test_refused_film_counts(self, tiny_snapshot: Path, write_films: Any, tmp_path: Path) -> None:
        out, folder = tmp_path / "out.json", write_films(*PUBLISHED)
        (folder / "NORMAL" / "IM-0001-0001.png").write_bytes(encoded(np.full((200, 200), 90, np.uint8)))
        arguments = [str(folder), "--model", str(tiny_snapshot), "--json", str(out), "--resamples", "20", "--quiet"]
        assert evaluate.main(arguments) == 0
        report = json.loads(out.read_text())
        assert report["n"] == 6
        assert report["refused"]["reasons"] == {"blank": 1}

    def test_parity_compares_namesakes(self, tiny_snapshot: Path, write_films: Any, tmp_path: Path) -> None:
        folder, out, other = write_films(*PUBLISHED), tmp_path / "out.json", tmp_path / "other"
        for name in PUBLISHED:
            path = other / Path(name).parent.name / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((folder / name).read_bytes())
        arguments = [str(folder), "--model", str(tiny_snapshot), "--json", str(out), "--quiet"]
        assert evaluate.main([*arguments, "--parity-with", str(other)]) == 0
        parity = json.loads(out.read_text())
        assert (parity["n"], parity["same_answer"], parity["differing"]) == (5, 5, [])
        assert parity["max_difference"] == 0
        assert str(tmp_path) not in out.read_text()
        # A film without its namesake is no pair.
        (other / PUBLISHED[0]).unlink()
        assert evaluate.main([*arguments, "--parity-with", str(other)]) == 2

    def test_held_back_takes_the_committed_fold_only(
        self, tiny_snapshot: Path, write_films: Any, tmp_path: Path
    ) -> None:
        # IM-0129 is in fold 0 of the committed split, IM-0115 in fold 6.
        out, folder = tmp_path / "out.json", write_films("NORMAL/IM-0129-0001.png", "NORMAL/IM-0115-0001.png")
        arguments = [str(folder), "--model", str(tiny_snapshot), "--held-back", "--json", str(out), "--quiet"]
        assert evaluate.main(arguments) == 0
        report = json.loads(out.read_text())
        assert report["n"] == 1
        assert report["data"]["split"] == "held-back fold 0, by patient"

    def test_held_back_of_a_patient_outside_the_split_is_a_sentence(
        self, tiny_snapshot: Path, write_films: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_films("NORMAL/stranger_1.png")
        assert evaluate.main([str(folder), "--model", str(tiny_snapshot), "--held-back", "--quiet"]) == 2
        assert "'stranger_1'" in capsys.readouterr().err

    @pytest.mark.parametrize("names", [(), ("HANDS/a.png",)], ids=["empty", "unknown folder"])
    def test_wrong_folder_is_a_sentence(
        self, names: tuple[str, ...], tiny_snapshot: Path, write_films: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert evaluate.main([str(write_films(*names)), "--model", str(tiny_snapshot), "--quiet"]) == 2
        assert "expected" in capsys.readouterr().err
