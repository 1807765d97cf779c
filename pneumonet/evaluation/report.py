"""The report of an evaluation: the JSON object that `scripts/evaluate.py` writes and the model card is made from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.calibration import negative_log_likelihood
from pneumonet.evaluation.answers import Answer, FilmError
from pneumonet.evaluation.failures import worst_failures
from pneumonet.evaluation.metrics import (
    CAUSE_NOT_STATED,
    Booleans,
    Floats,
    bootstrap,
    confusion_matrix,
    score,
)
from pneumonet.evaluation.reliability import error_if_calibrated, reliability, selective_risk
from pneumonet.evaluation.subgroups import subgroups
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, NORMAL, Risk

PNEUMONIA: Final = "PNEUMONIA"
_WEIGHT_STEP: Final = 0.05
_DIGITS: Final = 6


def build_report(
    answers: Sequence[Answer],
    errors: Sequence[FilmError],
    config: SnapshotConfig,
    *,
    resamples: int = 1000,
    seed: int = 2026,
) -> dict[str, Any]:
    """Return the figures of answered films, ready for JSON.

    Args:
        answers: What the model said; at least one.
        errors: Films that could not be read.
        config: The model's, for its members' weights and its prediction sets' coverage.
        resamples: Number of bootstrap resamples, by patient.
        seed: Seed of the resampling.

    Returns:
        Plain values, floats rounded to six digits, None for a figure that the films cannot give. `figures` in
        `pneumonet.evaluation.metrics` defines each; beside them `subgroups`, `failures` and `reliability`, each of the
        module of its name (`ece_if_calibrated` of the last), `prediction_set` (`coverage_of` a class: of its films
        alone), `indeterminate` (share of films whose risk is "Indeterminate"), `decided_accuracy` (accuracy on the
        others) and `told_no_risk` (share of films that are told "No Immediate Risk Detected", of `pneumonia` and of
        `normal`).
    """
    labels = np.array([answer.label_index for answer in answers])
    patients = [answer.patient for answer in answers]
    probabilities = np.array([answer.probabilities for answer in answers], dtype=np.float64)
    members = {name: np.array([a.members[name] for a in answers], dtype=np.float64) for name in answers[0].members}
    means = _means(answers, probabilities, labels)
    has_causes = not (labels == CAUSE_NOT_STATED).any()

    intervals = bootstrap(probabilities, labels, patients, resamples=resamples, seed=seed, means=means)
    for name, of_member in members.items():
        for metric, interval in bootstrap(of_member, labels, patients, resamples=resamples, seed=seed).items():
            intervals[f"members.{name}.{metric}"] = interval

    report = score(probabilities, labels, means)
    for index, name in enumerate(CLASS_NAMES):
        report["per_class"][name]["n"] = int((labels == index).sum()) if has_causes else None
    report["binary"]["confusion"] = _binary_confusion(probabilities, labels)
    report["prediction_set"]["nominal_coverage"] = config.prediction_set.coverage
    report["refused"] |= {"count": sum(bool(a.refusals) for a in answers), "reasons": _refusals(answers)}
    report |= {
        "class_names": list(CLASS_NAMES),
        "confusion": confusion_matrix(probabilities, labels) if has_causes else None,
        "reliability": reliability(probabilities, labels),
        "ece_if_calibrated": error_if_calibrated(probabilities, labels),
        "selective_risk": selective_risk(probabilities, labels),
        "members": {name: score(of_member, labels) for name, of_member in members.items()},
        "best_weight": _best_weight(members, labels, config) if has_causes else None,
        "subgroups": subgroups(answers, probabilities, labels, resamples=resamples, seed=seed),
        "failures": worst_failures(answers),
        "intervals": intervals,
        "bootstrap": {"resamples": resamples, "seed": seed, "unit": "patient", "level": 0.95},
        "n": len(answers),
        "patients": len(set(patients)),
        "n_per_class": _counts(labels),
        "errors": [asdict(error) for error in errors],
        "notes": [] if has_causes else [_no_causes_note(labels)],
    }
    rounded: dict[str, Any] = _rounded(report)
    return rounded


def _means(answers: Sequence[Answer], probabilities: Floats, labels: NDArray[np.integer]) -> dict[str, Floats]:
    """Return the values of each film whose means are figures; nan where a film does not count."""
    stated, normal = labels != CAUSE_NOT_STATED, labels == CLASS_NAMES.index(NORMAL)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    covered = np.array([float(a.label_index in a.prediction_set) for a in answers])
    indeterminate = np.array([a.risk is Risk.INDETERMINATE for a in answers])
    no_risk = np.array([float(a.risk is Risk.NONE_DETECTED) for a in answers])
    coverage_of = {
        f"prediction_set.coverage_of.{name}": np.where(stated.all() & (labels == index), covered, np.nan)
        for index, name in enumerate(CLASS_NAMES)
    }
    return {
        "prediction_set.mean_size": np.array([float(len(a.prediction_set)) for a in answers]),
        "prediction_set.coverage": np.where(stated.all(), covered, np.nan),
        **coverage_of,
        "indeterminate": indeterminate.astype(np.float64),
        "decided_accuracy": np.where(stated.all() & ~indeterminate, correct, np.nan),
        "told_no_risk.pneumonia": np.where(normal, np.nan, no_risk),
        "told_no_risk.normal": np.where(normal, no_risk, np.nan),
        "refused.share": np.array([float(bool(a.refusals)) for a in answers]),
    }


def _binary_confusion(probabilities: Floats, labels: NDArray[np.integer]) -> dict[str, int]:
    normal = CLASS_NAMES.index("NORMAL")
    truth: Booleans = labels != normal
    answers: Booleans = probabilities.argmax(axis=1) != normal
    return {
        "true_positive": int((truth & answers).sum()),
        "false_negative": int((truth & ~answers).sum()),
        "false_positive": int((~truth & answers).sum()),
        "true_negative": int((~truth & ~answers).sum()),
    }


def _best_weight(
    members: dict[str, Floats], labels: NDArray[np.integer], config: SnapshotConfig
) -> dict[str, Any] | None:
    """Return which weight of the first member would be best on these very films; None unless there are two members.

    Of weights that do equally well, the one nearest to the snapshot's is named. It is found on the films that it is
    judged on, so it flatters itself: it is reported beside the snapshot's, never used.
    """
    if len(config.members) != 2:
        return None
    first, second = (members[member.name] for member in config.members)
    shipped = config.members[0].weight

    def figures(weight: float) -> dict[str, float]:
        mixed = weight * first + (1 - weight) * second
        accuracy = float((mixed.argmax(axis=1) == labels).mean())
        return {"weight": weight, "accuracy": accuracy, "nll": negative_log_likelihood(mixed, labels)}

    weights = [float(w) for w in np.round(np.arange(0, 1 + _WEIGHT_STEP / 2, _WEIGHT_STEP), 2)]
    swept = [figures(weight) for weight in sorted(weights, key=lambda weight: abs(weight - shipped))]
    return {
        "member": config.members[0].name,
        "shipped": figures(shipped),
        "by_accuracy": max(swept, key=lambda choice: choice["accuracy"]),
        "by_nll": min(swept, key=lambda choice: choice["nll"]),
    }


def _refusals(answers: Sequence[Answer]) -> dict[str, int]:
    return dict(sorted(Counter(code for answer in answers for code in answer.refusals).items()))


def _counts(labels: NDArray[np.integer]) -> dict[str, int]:
    names = [PNEUMONIA if label == CAUSE_NOT_STATED else CLASS_NAMES[label] for label in labels]
    return dict(sorted(Counter(names).items()))


def _no_causes_note(labels: NDArray[np.integer]) -> str:
    n = int((labels == CAUSE_NOT_STATED).sum())
    return f"{n} films of {PNEUMONIA} state no cause, so there are no three-class figures: only normal or pneumonia."


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
