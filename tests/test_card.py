"""The model card: made from figures alone, loadable by the Hub's own reader, and the committed one up to date."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from huggingface_hub import ModelCard

from pneumonet.evaluation import Answer, build_report
from pneumonet.evaluation.traits import Traits
from pneumonet.hub import check_publishable
from pneumonet.model import PneumoNet
from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import Risk
from pneumonet.training.summary import summarise_runs, summarise_split
from scripts import write_card
from tests.support.films import encoded, phantom

MEMBERS = ("convnext_tiny", "efficientnetv2_s")
PLACEHOLDER = re.compile(r"[Mm]ore [Ii]nformation [Nn]eeded|\b(TODO|TBD|FIXME|None|nan|null)\b|\{[a-z_]+\}")


def _report(model: PneumoNet, *, causes: bool = True, seed: int = 0) -> dict[str, Any]:
    """A report as scripts/evaluate.py writes it, of invented answers."""
    rng = np.random.default_rng(seed)
    answers = []
    for i in range(90):
        label = i % 3
        draws = rng.dirichlet(np.ones(3) + 3 * np.eye(3)[label], size=2)
        probabilities = 0.4 * draws[0] + 0.6 * draws[1]
        answers.append(
            Answer(
                file=f"X/{i}.png",
                patient=str(i // 2),
                label_index=label if causes or label == 1 else -1,
                probabilities=tuple(probabilities),
                members={name: tuple(draw) for name, draw in zip(MEMBERS, draws, strict=True)},
                prediction_set=tuple(int(c) for c in np.flatnonzero(probabilities > 0.2)),
                risk=Risk.INDETERMINATE if probabilities.max() < 0.7 else list(Risk)[1 + (label + 2) % 3],
                refusals=("blank",) if i == 7 else (),
                traits=Traits("L" if i % 2 else "RGB", 224, 224, float(i)),
            )
        )
    report = build_report(answers, [], model.snapshot.config, resamples=50)
    data = {"path": "films", "split": "all films", "n": report.pop("n_per_class")}
    command = "python scripts/evaluate.py films --json out.json"
    return report | {"model": model.info.to_dict(), "data": data, "command": command, "date": "2026-11-25"}


def _extras(model: PneumoNet, folder: Path) -> dict[str, Any]:
    run = folder / "runs" / "convnext_tiny"
    run.mkdir(parents=True)
    recipe = {
        "arch": "convnext_tiny", "init": "random", "teachers": ["runs/teacher"], "epochs": 2,
        "sizes": [[0, 96], [1, 128]], "drop_path": 0.1, "batch_size": 32, "learning_rate": 0.001,
        "weight_decay": 0.05, "mixup": 0.2, "label_smoothing": 0.1, "label_share": 0.3, "feature_weight": 1.0,
        "ema_decay": 0.99, "precision": "bfloat16", "held_back_fold": 0, "seed": 1,
    }  # fmt: skip
    (run / "recipe.json").write_text(json.dumps(recipe))
    line = {"epoch": 1, "loss": 0.9, "seconds": 1800.0, "accuracy": 0.7, "binary_accuracy": 0.9, "recalls": [0.5] * 3}
    (run / "history.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(line | {'accuracy': 0.75})}\n")
    sides = {"training": {"films": {"NORMAL": 9}, "patients": 5}, "held_back": {"films": {"NORMAL": 4}, "patients": 3}}
    parity = {"n": 12, "same_answer": 11, "mean_difference": 0.0123, "max_difference": 0.25}
    calibration = {
        "ece_before": 0.111, "ece_cross_fitted": 0.055, "brier_cross_fitted": 0.345,
        "intervals": {"ece_cross_fitted": [0.031, 0.077]}, "model": model.info.to_dict(),
        "coverage_cross_fitted": 0.888,
        "coverage_cross_fitted_of": {"BACTERIAL_PNEUMONIA": 0.871, "NORMAL": 0.912, "VIRAL_PNEUMONIA": 0.883},
    }  # fmt: skip
    return {
        "training": summarise_runs({run: 2}) | {"split": sides | {"patients_in_both": 0}},
        "adult": _report(model, causes=False, seed=1),
        "official_test": {"accuracy": 0.8123, "binary": {"accuracy": 0.9123}, "n": 624},
        "original_size_parity": parity,
        "calibration": calibration,
        "admission": _admission(model),
        "saliency": _saliency(model),
    }


def _admission(model: PneumoNet) -> dict[str, Any]:
    """A report as scripts/measure_admission.py writes it."""
    row = {"n": 50, "admitted": 2, "share": 0.04, "reasons": {"inverted": 48}}
    return {
        "pass": {"held_back": row, "adult": {"n": 400, "admitted": 391, "share": 0.9775, "reasons": {}}},
        "strangers": {"film inverted": row},
        "refused": {"n": 50, "refused": 48, "share": 0.96},
        "model": model.info.to_dict(),
        "command": "python scripts/measure_admission.py",
    }


def _saliency(model: PneumoNet) -> dict[str, Any]:
    """A report as scripts/measure_saliency.py writes it."""
    summary = {"mean": 0.4321, "low": 0.1, "high": 0.9, "n": 5}
    curves = {order: {"deletion": summary, "insertion": summary} for order in ("map", "random", "centre")}
    sources = ("ensemble", *MEMBERS)
    return {
        "films": 5,
        "marked_films": 6,
        "faithfulness": dict.fromkeys(sources, curves),
        "randomisation": {name: {"head": summary, "all": summary | {"mean": None}} for name in MEMBERS},
        "frame": dict.fromkeys(sources, summary),
        "stability": {"JPEG 75": {"same_label": 0.98, "rank_correlation": dict.fromkeys(sources, summary)}},
        "marks": {
            "same_label": 0.9954,
            "by_mark": {
                "'R', upper left": {
                    "same_label": 0.99,
                    "largest_change": 0.0123,
                    "peak_moved_to_mark": 0.01,
                    "peak_on_mark": dict.fromkeys(sources, 0.02),
                }
            },
        },
        "model": model.info.to_dict(),
        "command": "python scripts/measure_saliency.py",
    }


@pytest.fixture(scope="module")
def snapshot(tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny snapshot with every optional figure and its card, in a folder named as in the card's snippets."""
    folder = tmp_path_factory.mktemp("card")
    shutil.copytree(tiny_snapshot, folder / "model_card")
    metrics = _report(tiny_model) | _extras(tiny_model, folder)
    (folder / "model_card" / "metrics.json").write_text(json.dumps(metrics))
    assert write_card.main(["--snapshot", str(folder / "model_card")]) == 0
    return folder / "model_card"


def _card_holds(folder: Path) -> None:
    """What every card must hold, made up or committed."""
    text = (folder / "README.md").read_text()
    card = ModelCard(text)  # offline; raises where the front matter or its index is malformed
    metrics = json.loads((folder / "metrics.json").read_text())
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "timm"
    assert card.data.pipeline_tag == "image-classification"
    assert card.data.datasets == ["hf-vision/chest-xray-pneumonia"]
    assert "base_model" not in card.data.to_dict()
    results = {r.metric_name: r for r in card.data.eval_results if r.dataset_split == write_card.HELD_BACK}
    assert results["Accuracy, three classes"].metric_value == metrics["accuracy"]
    assert results["AUROC, normal or pneumonia"].metric_value == metrics["binary"]["auroc"]
    assert all(not r.verified for r in results.values())
    assert PLACEHOLDER.search(card.text) is None, PLACEHOLDER.search(card.text)
    assert "not a medical device" in " ".join(card.text.split())
    for link in re.findall(r"\]\((?!https?:|#)([^)]+)\)", card.text):
        assert (folder / link).is_file(), link
    assert str(Path.cwd()) not in text
    assert "/home/" not in text


class TestGeneratedCard:
    def test_holds_what_a_card_must(self, snapshot: Path) -> None:
        _card_holds(snapshot)

    def test_is_fit_to_publish(self, snapshot: Path) -> None:
        assert "README.md" in check_publishable(snapshot)

    def test_carries_no_key_that_only_the_hub_may_set(self, snapshot: Path) -> None:
        front = yaml.safe_load((snapshot / "README.md").read_text().split("---")[1])
        assert "verified" not in json.dumps(front["model-index"])
        assert "verifyToken" not in json.dumps(front["model-index"])

    def test_shows_each_figure_with_its_interval(self, snapshot: Path) -> None:
        text, metrics = (snapshot / "README.md").read_text(), json.loads((snapshot / "metrics.json").read_text())
        for name in (
            "accuracy",
            "auroc_macro",
            "ece",
            "members.convnext_tiny.accuracy",
            "members.efficientnetv2_s.ece",
        ):
            value: Any = metrics
            for part in name.split("."):
                value = value[part]
            low, high = metrics["intervals"][name]
            assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in text, name
        for row in metrics["confusion"]:
            assert f"| {' | '.join(map(str, row))} |" in text

    @pytest.mark.parametrize(
        "words",
        [
            "0.4", "0.6", "took 2.0 core-hours", "| random weights | teacher | 2 of 2 |",
            "## Failures", "| not described |", "| image mode | L | 4", "| sharpness | under ",
            "96 from epoch 1, 128 from epoch 2", "0.03 kWh", "Patients in both: 0",
            "Of 12 of them", "11 get the same class", "0.055", "624 films, sealed", "0.812", "refuses 1 (1.1 %)",
            "`blank` 1", "CC BY 4.0", "10.17632/rscbjbr9sj.2", "Saporta", "Do not use it on adults", "random weights",
            "it refuses 48 (96.0 %)", "Of 400 films of adults it lets 391 pass", "0.432 [0.100, 0.900], n 5",
            "0.055 [0.031, 0.077]",
            "passes most often, film inverted, 2 of 50 pass",
            "same for 99.54 % of films", "told No Immediate Risk Detected", "cross-fitted", "0.871",
        ],
    )  # fmt: skip
    def test_says(self, words: str, snapshot: Path) -> None:
        text = " ".join((snapshot / "README.md").read_text().split())
        assert words in text

    def test_counts_of_errors_are_the_confusion_matrixs(self, snapshot: Path) -> None:
        text = " ".join((snapshot / "README.md").read_text().split())
        metrics = json.loads((snapshot / "metrics.json").read_text())
        bacterial, _, viral = metrics["confusion"]
        missed, sick = bacterial[1] + viral[1], sum(bacterial) + sum(viral)
        assert missed != metrics["binary"]["confusion"]["false_positive"]
        assert f"Of {sick} held-back films of pneumonia, {missed} were answered normal" in text
        adult = metrics["adult"]["binary"]["confusion"]
        assert f"{adult['false_negative']} with pneumonia were answered normal" in text
        assert f"and {adult['false_positive']} without a finding were answered pneumonia" in text

    def test_names_the_config_that_the_figures_are_of(self, snapshot: Path) -> None:
        assert f"`{SnapshotConfig.read(snapshot).fingerprint}`" in (snapshot / "README.md").read_text()

    def test_snippets_run_and_agree(
        self, snapshot: Path, tiny_model: PneumoNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        film = encoded(phantom())
        shutil.copytree(snapshot, tmp_path / "model_card")
        (tmp_path / "film.jpeg").write_bytes(film)
        monkeypatch.chdir(tmp_path)
        snippets = re.findall(r"```python\n(.*?)```", (snapshot / "README.md").read_text(), re.S)
        assert len(snippets) == 2
        spaces: list[dict[str, Any]] = []
        for snippet in snippets:
            spaces.append({})
            exec(snippet, spaces[-1])
        finding = tiny_model.predict(film)
        assert spaces[0]["finding"].probabilities == finding.probabilities
        assert spaces[1]["probabilities"][0].tolist() == pytest.approx(list(finding.probabilities.values()), abs=5e-3)
        assert finding.label in capsys.readouterr().out

    def test_without_the_optional_figures(self, tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path: Path) -> None:
        folder = tmp_path / "model_card"
        shutil.copytree(tiny_snapshot, folder)
        held_back = tmp_path / "held_back.json"
        held_back.write_text(json.dumps(_report(tiny_model)))
        assert write_card.main(["--snapshot", str(folder), "--metrics", str(held_back)]) == 0
        _card_holds(folder)
        text = (folder / "README.md").read_text()
        assert "kept sealed" in text
        assert "adult patients" not in text

    def test_new_figures_keep_the_others(self, snapshot: Path, tiny_model: PneumoNet, tmp_path: Path) -> None:
        folder = tmp_path / "model_card"
        shutil.copytree(snapshot, folder)
        held_back = tmp_path / "held_back.json"
        held_back.write_text(json.dumps(_report(tiny_model, seed=5)))
        assert write_card.main(["--snapshot", str(folder), "--metrics", str(held_back)]) == 0
        before, after = (json.loads((place / "metrics.json").read_text()) for place in (snapshot, folder))
        assert after["accuracy"] != before["accuracy"]
        assert after["adult"] == before["adult"]
        assert after["training"] == before["training"]

    def test_figures_of_other_weights_are_refused(
        self, snapshot: Path, tiny_model: PneumoNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = tmp_path / "held_back.json"
        report = _report(tiny_model)
        report["model"]["revision"] = "local-000000000000"
        other.write_text(json.dumps(report))
        before = (snapshot / "README.md").read_text()
        assert write_card.main(["--snapshot", str(snapshot), "--metrics", str(other)]) == 1
        assert "local-000000000000" in capsys.readouterr().err
        assert (snapshot / "README.md").read_text() == before

    def test_snapshot_without_figures_is_a_sentence(
        self, tiny_snapshot: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert write_card.main(["--snapshot", str(tiny_snapshot)]) == 1
        assert "--metrics" in capsys.readouterr().err


class TestCommittedCard:
    """The snapshot that the app starts with: no figure in its card may be older than its files."""

    def test_is_what_write_card_would_write(self) -> None:
        assert (DEFAULT_SNAPSHOT / "README.md").read_text() == write_card.card_of_folder(DEFAULT_SNAPSHOT)

    def test_readme_s_figures_are_those_of_the_card(self) -> None:
        readme = write_card.README.read_text()
        metrics = json.loads((DEFAULT_SNAPSHOT / "metrics.json").read_text())
        assert readme == write_card.readme_with_figures(readme, metrics)
        assert f"{metrics['accuracy']:.3f}" in readme

    def test_holds_what_a_card_must(self) -> None:
        _card_holds(DEFAULT_SNAPSHOT)

    def test_each_failure_is_described(self) -> None:
        text = (DEFAULT_SNAPSHOT / "README.md").read_text()
        assert "## Failures" in text
        assert "not described" not in text

    def test_figures_are_of_these_weights(self) -> None:
        metrics = json.loads((DEFAULT_SNAPSHOT / "metrics.json").read_text())
        revision = f"local-{SnapshotConfig.read(DEFAULT_SNAPSHOT).fingerprint}"
        assert metrics["model"]["revision"] == revision
        for key in ("adult", "admission", "saliency"):
            assert metrics[key]["model"]["revision"] == revision, key

    @pytest.mark.data
    def test_split_in_it_is_the_committed_one(self, shared_data: Path) -> None:
        metrics = json.loads((DEFAULT_SNAPSHOT / "metrics.json").read_text())
        split = summarise_split(shared_data / "chest_xray" / "train", 0)
        assert metrics["training"]["split"] == split
        assert metrics["n"] == sum(split["held_back"]["films"].values())
        assert split["patients_in_both"] == 0

    def test_students_start_as_the_card_says(self) -> None:
        metrics = json.loads((DEFAULT_SNAPSHOT / "metrics.json").read_text())
        students = [run for run in metrics["training"]["runs"] if run["teachers"]]
        assert {run["arch"] for run in students} >= {
            m.architecture for m in SnapshotConfig.read(DEFAULT_SNAPSHOT).members
        }
        by_name = {run["name"]: run for run in metrics["training"]["runs"]}
        for run in students:
            start = run["init"]
            while start in by_name:
                start = by_name[start]["init"]
            assert start == "random", run["name"]
