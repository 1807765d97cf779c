"""The model card's text. Every figure in it is read from metrics.json or config.json; none is typed in."""

import json
from pathlib import Path
from typing import Any, Final

from pneumonet.measured import MissRate
from pneumonet.snapshot import MEMBER_WEIGHTS_FILE, SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, DISPLAY_NAMES
from pneumonet.training import card_prose as prose
from pneumonet.training.card_measures import saliency, strangers
from pneumonet.training.card_tables import figure, markdown_table, percent
from pneumonet.training.card_uncertainty import abstention, calibration, prediction_sets, reliability_table

# What the developers see on single films of the training archive, by file: true of the film, whatever the weights.
FILM_WORDS: Final = Path(__file__).with_name("film_words.json")
HELD_BACK: Final = "patient-held-back eighth of the official train split"
Metrics = dict[str, Any]

_MAIN_ROWS: Final = {
    "accuracy": "Accuracy, three classes",
    "f1_macro": "F1, mean of classes",
    "auroc_macro": "AUROC, mean of classes, each against the rest",
    "binary.accuracy": "Accuracy, normal or pneumonia",
    "binary.sensitivity": "Sensitivity to pneumonia",
    "binary.specificity": "Specificity",
    "binary.auroc": "AUROC, normal or pneumonia",
    "ece": "Expected calibration error",
    "brier": "Brier score",
    "told_no_risk.pneumonia": "Films of pneumonia told No Immediate Risk Detected",
}
_ADULT_ROWS: Final = {
    **{
        name: _MAIN_ROWS[name]
        for name in ("binary.accuracy", "binary.sensitivity", "binary.specificity", "binary.auroc")
    },
    "binary.ece": "Expected calibration error, normal or pneumonia",
    "binary.brier": "Brier score, normal or pneumonia",
    "indeterminate": "Share Indeterminate",
    "told_no_risk.pneumonia": _MAIN_ROWS["told_no_risk.pneumonia"],
    "refused.share": "Share refused by admission",
}


def card_body(metrics: Metrics, config: SnapshotConfig) -> str:
    """Return the card below its front matter.

    Args:
        metrics: The snapshot's metrics.json: the report of `scripts/evaluate.py` on the held-back fold, and where there
            are such figures `training`, `calibration`, `adult`, `official_test`, `original_size_parity`.
        config: The snapshot's config.json.
    """
    sections = [
        _summary(config),
        prose.USES,
        _how_to_use(config),
        prose.DATA + _split(metrics),
        _preprocessing(config),
        _evaluation(metrics),
        calibration(metrics, config),
        prediction_sets(metrics, config),
        abstention(metrics, config),
        _refusals(metrics),
        strangers(metrics),
        _official_test(metrics),
        _adult(metrics),
        _parity(metrics),
        _failures(metrics),
        _limits(metrics),
        prose.EXAMINATION,
        saliency(metrics),
        _training(metrics, config),
        _files(config),
        prose.LICENCES,
        _citation(metrics, config),
        prose.CONTACT,
    ]
    return "\n\n".join(section.strip() for section in sections if section) + "\n"


def _summary(config: SnapshotConfig) -> str:
    shares = " and ".join(f"{m.display_name} ({m.weight:g})" for m in config.members)
    return prose.SUMMARY.format(members=shares, version=config.version)


def _how_to_use(config: SnapshotConfig) -> str:
    return prose.HOW_TO_USE.format(tag=f"v{config.version}", first=config.members[0].name)


def _split(metrics: Metrics) -> str:
    split = metrics.get("training", {}).get("split")
    if not split:
        return ""
    rows = [["films", *(DISPLAY_NAMES[name] for name in CLASS_NAMES), "all", "patients"]]
    for key, words in (("training", "trained on"), ("held_back", "held back")):
        counts = [split[key]["films"].get(name, 0) for name in CLASS_NAMES]
        rows.append([words, *map(str, counts), str(sum(counts)), str(split[key]["patients"])])
    overlap = f"Patients in both: {split['patients_in_both']}."
    return f"\n\n{markdown_table(rows)}\n\n{overlap}"


def _preprocessing(config: SnapshotConfig) -> str:
    image = config.input
    return prose.PREPROCESSING.format(
        size=image.size,
        mean=", ".join(f"{value:g}" for value in image.mean),
        std=", ".join(f"{value:g}" for value in image.std),
        fingerprint=config.fingerprint,
    )


def _evaluation(metrics: Metrics) -> str:
    members = list(metrics["members"])
    rows = [["", "ensemble", *(f"{name} alone" for name in members)]]
    rows += [
        [words, figure(metrics, name), *(figure(metrics, f"members.{member}.{name}") for member in members)]
        for name, words in _MAIN_ROWS.items()
    ]
    return "\n\n".join(
        [
            prose.EVALUATION.format(n=metrics["n"], patients=metrics["patients"], split=HELD_BACK, **_sources(metrics)),
            markdown_table(rows),
            "Each class against the rest, by the ensemble:",
            markdown_table(_per_class(metrics)),
            "Truth in rows, answer in columns:",
            markdown_table(_confusion(metrics)),
            *_best_weight(metrics),
            *_subgroups(metrics),
        ]
    )


def _sources(metrics: Metrics) -> dict[str, Any]:
    bootstrap = metrics["bootstrap"]
    return {
        "resamples": bootstrap["resamples"],
        "level": percent(bootstrap["level"], digits=0),
        "command": metrics["command"],
        "date": metrics["date"],
        "revision": metrics["model"]["revision"],
    }


def _per_class(metrics: Metrics) -> list[list[str]]:
    rows = [["class", "films", "recall", "precision", "F1", "AUROC"]]
    for name in CLASS_NAMES:
        values = [figure(metrics, f"per_class.{name}.{key}") for key in ("recall", "precision", "f1", "auroc")]
        rows.append([DISPLAY_NAMES[name], str(metrics["per_class"][name]["n"]), *values])
    return rows


def _confusion(metrics: Metrics) -> list[list[str]]:
    names = [DISPLAY_NAMES[name] for name in CLASS_NAMES]
    return [["", *names], *([n, *map(str, row)] for n, row in zip(names, metrics["confusion"], strict=True))]


def _subgroups(metrics: Metrics) -> list[str]:
    if not metrics.get("subgroups"):
        return []
    rows = [["factor", "group", "films", "normal", "accuracy", "sensitivity to pneumonia", "specificity"]]
    for factor, groups in metrics["subgroups"].items():
        for name, group in groups.items():
            figures = [figure(group, key) for key in ("accuracy", "binary.sensitivity", "binary.specificity")]
            rows.append([factor, name, str(group["n"]), str(group["n_normal"]), *figures])
    stands_in = [] if "megapixels" in metrics["subgroups"] else [prose.SHARPNESS]
    return [prose.SUBGROUPS, *stands_in, markdown_table(rows)]


def _best_weight(metrics: Metrics) -> list[str]:
    best = metrics.get("best_weight")
    if not best:
        return []
    return [
        f"The weight of {best['member']} is {best['shipped']['weight']:g} by choice, not by search: accuracy "
        f"{best['shipped']['accuracy']:.3f}. On these very films {best['by_accuracy']['weight']:g} would be the most "
        f"accurate ({best['by_accuracy']['accuracy']:.3f}) and {best['by_nll']['weight']:g} the most likely; no figure "
        "here uses either."
    ]


def _refusals(metrics: Metrics) -> str:
    refused = metrics["refused"]
    reasons = ", ".join(f"`{code}` {n}" for code, n in refused["reasons"].items())
    return prose.REFUSALS.format(
        count=refused["count"],
        n=metrics["n"],
        share=percent(refused["share"]),
        reasons=f" By reason: {reasons}." if reasons else "",
        errors=len(metrics["errors"]),
    )


def _official_test(metrics: Metrics) -> str:
    report = metrics.get("official_test")
    if not report:
        return prose.NO_OFFICIAL_TEST
    rows = [["", "ensemble"], *([words, figure(report, name)] for name, words in _MAIN_ROWS.items())]
    rows = [row for row in rows if row[-1] != "-"]
    return prose.OFFICIAL_TEST.format(n=report["n"]) + "\n\n" + markdown_table(rows)


def _adult(metrics: Metrics) -> str:
    report = metrics.get("adult")
    if not report:
        return ""
    rows = [["", "ensemble"], *([words, figure(report, name)] for name, words in _ADULT_ROWS.items())]
    counts = report["binary"]["confusion"]
    return prose.ADULT.format(
        normal=report["data"]["n"].get("NORMAL", 0),
        sick=report["data"]["n"].get("PNEUMONIA", 0),
        patients=report["patients"],
        missed=counts["false_negative"],
        alarms=counts["false_positive"],
        table=markdown_table(rows),
        reliability=reliability_table(report, "probability of pneumonia", "share labelled pneumonia"),
    )


def _parity(metrics: Metrics) -> str:
    parity = metrics.get("original_size_parity")
    if not parity:
        return ""
    return prose.PARITY.format(
        n=parity["n"],
        same=parity["same_answer"],
        mean=f"{parity['mean_difference']:.3f}",
        largest=f"{parity['max_difference']:.3f}",
    )


def _failures(metrics: Metrics) -> str:
    failures = metrics.get("failures")
    if not failures:
        return ""
    words = json.loads(FILM_WORDS.read_text())
    rows = [["film", "truth", "answer", "probability of it", "of the truth", "what is seen"]]
    for failure in failures:
        names = [DISPLAY_NAMES[failure[key]].lower() for key in ("truth", "answer")]
        values = [f"{failure[key]:.3f}" for key in ("probability", "probability_of_truth")]
        rows.append([f"`{failure['file']}`", *names, *values, words.get(failure["file"], "not described")])
    return f"{prose.FAILURES}\n\n{markdown_table(rows)}"


def _limits(metrics: Metrics) -> str:
    recalls = {name: metrics["per_class"][name]["recall"] for name in CLASS_NAMES}
    weakest = min(recalls, key=lambda name: recalls[name])
    row = metrics["confusion"][CLASS_NAMES.index(weakest)]
    went = " and ".join(
        f"{n} answered as {DISPLAY_NAMES[name].lower()}"
        for name, n in zip(CLASS_NAMES, row, strict=True)
        if name != weakest
    )
    rate = MissRate.of(metrics)
    return prose.LIMITS.format(
        weakest=DISPLAY_NAMES[weakest].lower(), n=sum(row), went=went, missed=rate.missed, sick=rate.sick
    )


def _training(metrics: Metrics, config: SnapshotConfig) -> str:
    training = metrics.get("training", {})
    if not training.get("runs"):
        return prose.PROCEDURE
    header = ["run", "architecture", "start", "teachers", "epochs", "side in pixels", "batch", "learning rate",
              "core-hours", "accuracy"]  # fmt: skip
    rows = [header, *(_run_row(run) for run in training["runs"])]
    cost = prose.COST.format(
        core_hours=f"{training['core_hours']:.1f}", watts=training["watts_per_core"], kwh=f"{training['kwh']:.2f}"
    )
    notes = [prose.HISTORIES[config.version]] if config.version in prose.HISTORIES else []
    return "\n\n".join([prose.PROCEDURE, *notes, markdown_table(rows), cost])


def _run_row(run: dict[str, Any]) -> list[str]:
    sizes = ", ".join(f"{side} from epoch {first + 1}" for first, side in run["sizes"])
    start = prose.STARTS.get(run["init"], f"weights of {run['init']}")
    teachers = ", ".join(run["teachers"]) or "none"
    numbers = [
        str(run["batch_size"]),
        f"{run['learning_rate']:g}",
        f"{run['core_hours']:.1f}",
        f"{run['accuracy']:.3f}",
    ]
    epochs = f"{run['epochs_finished']} of {run['epochs']}"
    return [run["name"], f"`{run['arch']}`", start, teachers, epochs, sizes, *numbers]


def _files(config: SnapshotConfig) -> str:
    rows = [["backbone", "timm architecture", "weight", "temperature", "Grad-CAM layer", "weights, MB"]]
    for m in config.members:
        size = config.files[f"{m.name}/{MEMBER_WEIGHTS_FILE}"].size / 1e6
        numbers = [f"{m.weight:g}", f"{m.temperature:g}", f"`{m.target_layer}`", f"{size:.1f}"]
        rows.append([m.display_name, f"`{m.architecture}`", *numbers])
    links = ", ".join(f"[{m.name}]({m.name}/{MEMBER_WEIGHTS_FILE})" for m in config.members)
    return prose.FILES.format(
        table=markdown_table(rows),
        links=links,
        features=config.admission.features_file,
        presentation=config.admission.presentation_file,
    )


def _citation(metrics: Metrics, config: SnapshotConfig) -> str:
    return prose.CITATION.replace("VERSION", config.version).replace("YEAR", metrics["date"][:4])
