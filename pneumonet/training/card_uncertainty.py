"""The model card's sections on uncertainty: calibration, prediction sets, abstention."""

from typing import Any

from pneumonet.measured import MissRate
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES, REVIEW_CONFIDENCE, Risk
from pneumonet.training import card_prose as prose
from pneumonet.training.card_figures import RELIABILITY_FIGURE
from pneumonet.training.card_tables import figure, markdown_table, percent

Metrics = dict[str, Any]


def calibration(metrics: Metrics, config: SnapshotConfig) -> str:
    """Return how far the probabilities may be believed, with the reliability diagram."""
    temperatures = ", ".join(f"{m.display_name} {m.temperature:g}" for m in config.members)
    parts = [
        prose.CALIBRATION.format(
            temperatures=temperatures,
            ece=figure(metrics, "ece"),
            binary_ece=figure(metrics, "binary.ece"),
            binary_brier=figure(metrics, "binary.brier"),
            floor=f"{metrics['ece_if_calibrated']:.3f}",
        )
    ]
    if fitted := metrics.get("calibration"):
        parts.append(
            "With temperatures fitted, five times over, on the held-back patients that a film does not belong to, the "
            f"calibration error is {figure(fitted, 'ece_cross_fitted')} and the Brier score "
            f"{figure(fitted, 'brier_cross_fitted')}: the figures to believe for a film from the same hospital. "
            f"Without any temperature the error is {fitted['ece_before']:.3f}."
        )
    return "\n\n".join([*parts, prose.RELIABILITY.format(figure=RELIABILITY_FIGURE), reliability_table(metrics)])


def reliability_table(report: Metrics, of: str = "confidence", came_true: str = "share right") -> str:
    """Return the bins of a report's reliability diagram as a table."""
    rows = [[of, "films", f"mean {of}", came_true]]
    rows += [
        [f"{b['from']:.3f} to {b['to']:.3f}", str(b["n"]), f"{b['confidence']:.3f}", f"{b['accuracy']:.3f}"]
        for b in report["reliability"]
    ]
    return markdown_table(rows)


def prediction_sets(metrics: Metrics, config: SnapshotConfig) -> str:
    """Return what the sets promise and what they hold, class by class."""
    sets, fitted = metrics["prediction_set"], metrics.get("calibration", {})
    rows = [["films", "coverage", "coverage, cross-fitted"]]
    rows.append(["all", figure(metrics, "prediction_set.coverage"), figure(fitted, "coverage_cross_fitted")])
    rows += [
        [
            DISPLAY_NAMES[name],
            figure(metrics, f"prediction_set.coverage_of.{name}"),
            figure(fitted, f"coverage_cross_fitted_of.{name}"),
        ]
        for name in CLASS_NAMES
    ]
    thresholds = config.prediction_set.thresholds
    return prose.PREDICTION_SETS.format(
        thresholds=", ".join(f"{DISPLAY_NAMES[name].lower()} {value:.3f}" for name, value in thresholds.items()),
        nominal=percent(sets["nominal_coverage"], digits=0),
        size=f"{sets['mean_size']:.2f}",
        table=markdown_table(rows),
    )


def abstention(metrics: Metrics, config: SnapshotConfig) -> str:
    """Return when no answer is given, what sick children are told, and the selective-risk curve."""
    rows = [["answered", "films", "least confidence", "wrong"]]
    rows += [
        [percent(row["coverage"], digits=0), str(row["n"]), f"{row['confidence']:.3f}", f"{row['error']:.3f}"]
        for row in metrics["selective_risk"]
    ]
    rate = MissRate.of(metrics)
    return prose.ABSTENTION.format(
        review=percent(REVIEW_CONFIDENCE, digits=0),
        variation=f"{config.agreement.max_total_variation:.3f}",
        indeterminate=percent(metrics["indeterminate"]),
        decided=figure(metrics, "decided_accuracy"),
        told_sick=figure(metrics, "told_no_risk.pneumonia"),
        told_normal=figure(metrics, "told_no_risk.normal"),
        no_risk=Risk.NONE_DETECTED.value,
        missed=rate.missed,
        sick=rate.sick,
        table=markdown_table(rows),
    )
