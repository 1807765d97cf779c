"""Write the model card of a snapshot from its metrics.json and config.json.

    python scripts/write_card.py
    python scripts/write_card.py --metrics held_back.json --adult adult.json --calibration runs/calibration.json \
        --run runs/teacher_lite0=2 --run runs/convnext_tiny --run runs/efficientnetv2_s

The README's figures are made anew too, where the snapshot is the committed one. With figures given, they are put into
metrics.json first: those of --metrics, the JSON that scripts/evaluate.py writes for the held-back fold, at its top
level, and the others under a key each, which keep what they hold when not given. A run's cores follow its
folder, 1 by default.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from huggingface_hub import EvalResult, ModelCardData

from pneumonet.errors import PneumoNetError
from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import CARD_FILE, METRICS_FILE, SnapshotConfig
from pneumonet.training.card import HELD_BACK, card_body
from pneumonet.training.card_figures import RELIABILITY_FIGURE, draw_reliability
from pneumonet.training.card_tables import figure, markdown_table
from pneumonet.training.summary import summarise_runs, summarise_split

README = Path(__file__).resolve().parents[1] / "README.md"
_MARKS = ("<!-- figures: written by scripts/write_card.py from model_card/metrics.json -->\n", "<!-- /figures -->")
DATASET_ID = "hf-vision/chest-xray-pneumonia"
DATASET_NAME = "Chest X-Ray Images (Pneumonia), Kermany et al. 2018"
_EXTRAS = ("training", "calibration", "adult", "official_test", "original_size_parity", "admission", "saliency")
_OF_WEIGHTS = tuple(key for key in _EXTRAS if key not in ("training", "official_test"))
# (Hub metric id, dotted name in metrics.json, name on the page)
_RESULTS = (
    ("accuracy", "accuracy", "Accuracy, three classes"),
    ("f1", "f1_macro", "F1, macro"),
    ("roc_auc", "auroc_macro", "AUROC, one-vs-rest, macro"),
    ("accuracy", "binary.accuracy", "Accuracy, normal or pneumonia"),
    ("recall", "binary.sensitivity", "Sensitivity to pneumonia"),
    ("specificity", "binary.specificity", "Specificity"),
    ("roc_auc", "binary.auroc", "AUROC, normal or pneumonia"),
    ("ece", "ece", "Expected calibration error, 15 bins of equal mass"),
    ("brier_score", "brier", "Brier score, three classes"),
    ("told_no_risk", "told_no_risk.pneumonia", "Films of pneumonia told No Immediate Risk Detected"),
)


def card_of(metrics: dict[str, Any], config: SnapshotConfig) -> str:
    """Return the whole card: front matter and body.

    Raises:
        ValueError: If the figures are of other weights than the config's.
    """
    _check_weights(metrics, config)
    data = ModelCardData(
        license="apache-2.0",
        language="en",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["medical", "chest-x-ray", "pneumonia", "paediatric", "grad-cam", "calibration", "ensemble", "pneumonet"],
        datasets=[DATASET_ID],
        metrics=["accuracy", "f1", "roc_auc", "recall", "precision", "brier_score"],
        model_name="PneumoNet",
        eval_results=[*_results(metrics, HELD_BACK), *_results(metrics.get("official_test", {}), "test")],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{card_body(metrics, config)}"


def card_of_folder(folder: Path) -> str:
    """Return the card that a snapshot folder should hold."""
    metrics = json.loads((folder / METRICS_FILE).read_text())
    return card_of(metrics, SnapshotConfig.read(folder))


def readme_with_figures(readme: str, metrics: dict[str, Any]) -> str:
    """Return the repository's README with its figures made anew.

    Raises:
        ValueError: If the README lacks the marks that the figures stand between.
    """
    before, opening, rest = readme.partition(_MARKS[0])
    _, closing, after = rest.partition(_MARKS[1])
    if not opening or not closing:
        raise ValueError(f"expected {_MARKS[0].strip()} and {_MARKS[1]} in the README")
    rows = [["figure", "value [95 % interval by patient]"]]
    rows += [[words, figure(metrics, name)] for _, name, words in _RESULTS]
    text = (
        f"On {metrics['n']} films of {metrics['patients']} patients of the training hospital that no backbone was "
        f"trained on ({HELD_BACK}), weights {metrics['model']['version']}:\n\n{markdown_table(rows)}\n\n"
        "Temperatures were fitted on these same films; the card has the cross-fitted calibration error.\n"
        f"Printed by `{metrics['command']}`.\n"
    )
    return before + opening + text + closing + after


def _results(report: dict[str, Any], split: str) -> list[EvalResult]:
    results = []
    for metric_type, name, words in _RESULTS:
        value: Any = report
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            results.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image classification",
                    dataset_type=DATASET_ID,
                    dataset_name=DATASET_NAME,
                    dataset_split=split,
                    metric_type=metric_type,
                    metric_name=words,
                    metric_value=value,
                )
            )
    return results


def _check_weights(metrics: dict[str, Any], config: SnapshotConfig) -> None:
    for report in (metrics, *(metrics.get(key, {}) for key in _OF_WEIGHTS)):
        revision = report.get("model", {}).get("revision", "")
        if revision.startswith("local-") and revision != f"local-{config.fingerprint}":
            raise ValueError(f"expected figures of the weights local-{config.fingerprint}, got figures of {revision}")


def _run(text: str) -> tuple[Path, float]:
    folder, _, cores = text.partition("=")
    return Path(folder), float(cores or 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--snapshot", type=Path, default=DEFAULT_SNAPSHOT)
    parser.add_argument("--metrics", type=Path, metavar="JSON", help="evaluate.py's, of the held-back fold")
    parser.add_argument("--adult", type=Path, metavar="JSON", help="evaluate.py's, of the adult films")
    parser.add_argument("--official-test", type=Path, metavar="JSON", help="figures of the official test split")
    parser.add_argument("--original-size-parity", type=Path, metavar="JSON", help="evaluate.py --parity-with's")
    parser.add_argument("--calibration", type=Path, metavar="JSON", help="calibrate.py's")
    parser.add_argument("--admission", type=Path, metavar="JSON", help="measure_admission.py's")
    parser.add_argument("--saliency", type=Path, metavar="JSON", help="measure_saliency.py's")
    parser.add_argument("--run", type=_run, action="append", default=[], metavar="FOLDER[=CORES]")
    parser.add_argument("--after-earlier-runs", action="store_true", help="keep the runs that metrics.json lists")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"), help="counts of --run")
    return parser


def _updated(metrics: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    kept = {key: metrics[key] for key in _EXTRAS if key in metrics}
    if arguments.metrics:
        metrics = json.loads(arguments.metrics.read_text()) | kept
    for key in _EXTRAS:
        if path := getattr(arguments, key, None):
            metrics[key] = json.loads(path.read_text())
    if arguments.run:
        runs = dict(arguments.run)
        earlier = metrics.get("training", {}).get("runs", []) if arguments.after_earlier_runs else []
        training = summarise_runs(runs, earlier)
        training["split"] = summarise_split(arguments.data, training["runs"][-1]["held_back_fold"])
        metrics["training"] = training
    return metrics


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    arguments = _parser().parse_args(argv)
    path = arguments.snapshot / METRICS_FILE
    try:
        metrics = json.loads(path.read_text()) if path.is_file() else {}
        updated = _updated(metrics, arguments)
        if updated.get("accuracy") is None:
            raise ValueError(f"expected three-class figures: {METRICS_FILE} in the snapshot, or --metrics")
        text = card_of(updated, SnapshotConfig.read(arguments.snapshot))
    except (PneumoNetError, OSError, ValueError) as error:
        print(f"write_card: {error}", file=sys.stderr)
        return 1
    if arguments.snapshot.resolve() == DEFAULT_SNAPSHOT.resolve():
        README.write_text(readme_with_figures(README.read_text(), updated))
    path.write_text(json.dumps(updated, indent=2) + "\n")
    (arguments.snapshot / CARD_FILE).write_text(text)
    draw_reliability(updated, arguments.snapshot / RELIABILITY_FIGURE)
    print(f"{METRICS_FILE} and {CARD_FILE} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
