"""An evaluation's report as text for a terminal."""

from collections.abc import Sequence
from typing import Any, Final

from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES
from pneumonet.training.card_tables import figure

_PER_CLASS: Final = {"recall": "recall", "precision": "precision", "auroc": "AUROC"}
FIGURES: Final[dict[str, str]] = {
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "auroc_macro": "macro AUROC",
    **{
        f"per_class.{name}.{metric}": f"{DISPLAY_NAMES[name]}: {words}"
        for name in CLASS_NAMES
        for metric, words in _PER_CLASS.items()
    },
    "binary.accuracy": "normal or pneumonia: accuracy",
    "binary.sensitivity": "normal or pneumonia: sensitivity",
    "binary.specificity": "normal or pneumonia: specificity",
    "binary.auroc": "normal or pneumonia: AUROC",
    "ece": "expected calibration error",
    "brier": "Brier score",
    "binary.ece": "normal or pneumonia: calibration error",
    "binary.brier": "normal or pneumonia: Brier score",
    "prediction_set.mean_size": "prediction set: mean size",
    "prediction_set.coverage": "prediction set: coverage",
    **{
        f"prediction_set.coverage_of.{name}": f"prediction set: coverage, {DISPLAY_NAMES[name].lower()}"
        for name in CLASS_NAMES
    },
    "indeterminate": "share Indeterminate",
    "decided_accuracy": "accuracy on the others",
    "told_no_risk.pneumonia": "pneumonia told No Immediate Risk",
    "told_no_risk.normal": "normal told No Immediate Risk",
    "refused.share": "share refused by admission",
}


def as_text(report: dict[str, Any]) -> str:
    """Return the whole report as aligned text."""
    members = list(report["members"])
    rows = [["", "ensemble", *members]]
    rows += [
        [words, figure(report, name), *(figure(report, f"members.{member}.{name}") for member in members)]
        for name, words in FIGURES.items()
    ]
    counts = ", ".join(f"{n} {name}" for name, n in report["data"]["n"].items())
    bootstrap = report["bootstrap"]
    parts = [
        f"{report['n']} films of {report['patients']} patients: {counts}.",
        f"95 % intervals from {bootstrap['resamples']} bootstrap resamples of patients, seed {bootstrap['seed']}.",
        *report["notes"],
        "",
        aligned(rows),
        *_confusion(report),
        *_best_weight(report),
        *_selective_risk(report),
        *_problems(report),
    ]
    return "\n".join(parts)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, the first column flush left and the others flush right.

    >>> print(aligned([["a", "10"], ["bcd", "5"]]))
    a    10
    bcd   5
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    )


def _confusion(report: dict[str, Any]) -> list[str]:
    names = [DISPLAY_NAMES[name] for name in CLASS_NAMES]
    if report["confusion"] is None:
        counts = report["binary"]["confusion"]
        rows = [
            ["truth \\ answer", "normal", "pneumonia"],
            ["normal", str(counts["true_negative"]), str(counts["false_positive"])],
            ["pneumonia", str(counts["false_negative"]), str(counts["true_positive"])],
        ]
    else:
        rows = [["truth \\ answer", *names]]
        rows += [[name, *map(str, counts)] for name, counts in zip(names, report["confusion"], strict=True)]
    return ["", aligned(rows)]


def _best_weight(report: dict[str, Any]) -> list[str]:
    best = report["best_weight"]
    if best is None:
        return []
    choices = {
        "in the snapshot": best["shipped"],
        "most accurate on these films": best["by_accuracy"],
        "most likely on these films": best["by_nll"],
    }
    rows = [[f"weight of {best['member']}", "weight", "accuracy", "NLL"]]
    rows += [
        [words, f"{choice['weight']:.2f}", *(f"{choice[key]:.3f}" for key in ("accuracy", "nll"))]
        for words, choice in choices.items()
    ]
    return ["", aligned(rows)]


def _selective_risk(report: dict[str, Any]) -> list[str]:
    rows = [["answering only the surest", "films", "from confidence", "wrong"]]
    rows += [
        [f"{row['coverage']:.0%}", str(row["n"]), f"{row['confidence']:.3f}", f"{row['error']:.3f}"]
        for row in report["selective_risk"]
    ]
    return ["", aligned(rows)]


def _problems(report: dict[str, Any]) -> list[str]:
    refused, errors = report["refused"], report["errors"]
    reasons = ", ".join(f"{code} {n}" for code, n in refused["reasons"].items())
    lines = ["", f"Refused by admission, yet counted: {refused['count']}" + (f" ({reasons})" if reasons else "")]
    lines.append(f"Unreadable, not counted: {len(errors)}")
    lines += [f"  {error['file']}: {error['code']}" for error in errors]
    return lines
