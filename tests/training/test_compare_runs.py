"""Recipes compared on the patients that their runs held back: figures by hand, spread, and runs scored together."""

import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pneumonet.training.films import load_split
from pneumonet.training.run import Run
from pneumonet.training.run_folder import load_averaged
from scripts import compare_runs
from tests.support.runs import CPU, RECIPE, child_films


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of fold 0's patients of the committed split, dark, middle and bright, and one of another fold."""
    folder = tmp_path_factory.mktemp("films")
    split = load_split()
    normal = [p for p, fold in split.items() if fold == 0 and "IM-" in p][:5]
    sick = [p for p, fold in split.items() if fold == 0 and p.startswith("person")][:10]
    names = [f"PNEUMONIA/{p}_bacteria_1.png" for p in sick[:5]]
    names += [f"NORMAL/{p}-0001.png" for p in normal]
    names += [f"PNEUMONIA/{p}_virus_1.png" for p in sick[5:]]
    names.append(f"NORMAL/{next(p for p, fold in split.items() if fold == 1 and 'IM-' in p)}-0001.png")
    rng = np.random.default_rng(1)
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        grey = 20 + 95 * (min(i, 14) // 5) + rng.integers(0, 60)  # so wide that some are mistaken
        Image.fromarray(np.full((224, 224), min(grey, 255), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other")
    Run(replace(RECIPE, seed=5), folder, CPU).fit(child_films(96, 1), child_films(30, 2))
    return folder


def _held_back(data: Path) -> list[Path]:
    return [path for path in sorted(data.glob("*/*")) if load_split()[path.name.split("_")[0].split("-0001")[0]] == 0]


def _by_hand(run: Path, data: Path) -> np.ndarray:
    """Return (15, 3): the run's probabilities of fold 0's films, in the order of their paths."""
    model, _ = load_averaged(run)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    films = _held_back(data)
    views = np.stack([np.asarray(Image.open(path).resize((64, 64))) for path in films])
    with torch.no_grad():
        logits = model((torch.from_numpy(views)[:, None].float() / 255 - mean) / std)
    return logits.softmax(1).numpy()


def test_figures_are_those_of_the_held_back_films(
    teacher: Path, other: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "report.json"
    recipes = [f"each: {teacher} {other}", f"together: {teacher}+{other}"]
    monkeypatch.setattr(sys, "argv", ["compare_runs", *recipes, "--data", str(data), "--json", str(out)])
    compare_runs.main()

    films = _held_back(data)
    labels = np.array([1 if p.parent.name == "NORMAL" else 0 if "bacteria" in p.name else 2 for p in films])
    answers = [_by_hand(run, data) for run in (teacher, other)]
    accuracies = [float((a.argmax(1) == labels).mean()) for a in answers]
    report = json.loads(out.read_text())
    assert report["each"]["figures"]["accuracy"] == pytest.approx(accuracies, abs=1e-6)
    assert report["together"]["figures"]["accuracy"] == pytest.approx(
        [float((np.mean(answers, axis=0).argmax(1) == labels).mean())], abs=1e-6
    )
    table = capsys.readouterr().out
    assert f"| each | 2 | {statistics.mean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f} |" in table


def test_a_side_can_be_chosen_and_runs_of_other_folds_are_not_mixed(teacher: Path, data: Path, tmp_path: Path) -> None:
    assert compare_runs._run(f"{teacher}@96").size == 96
    assert compare_runs._run(str(teacher)).size == 64
    Run(replace(RECIPE, held_back_fold=1), tmp_path, CPU).fit(child_films(48, 1), child_films(15, 2))
    with pytest.raises(ValueError, match="same fold"):
        compare_runs._figures([str(teacher), str(tmp_path)], data)
