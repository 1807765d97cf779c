"""The model card's sections on what admission refuses and on what the saliency maps are worth."""

from typing import Any

from pneumonet.finding import ENSEMBLE
from pneumonet.training import card_prose as prose
from pneumonet.training.card_tables import markdown_table, percent

Metrics = dict[str, Any]


def strangers(metrics: Metrics) -> str:
    """Return what admission does with pictures that are no chest film, empty where it was not measured."""
    report = metrics.get("admission")
    if not report:
        return ""
    rows = [["kind", "pictures", "admitted", "reasons of the others"]]
    for kind, row in report["strangers"].items():
        reasons = ", ".join(f"`{code}` {n}" for code, n in row["reasons"].items())
        rows.append([kind, str(row["n"]), str(row["admitted"]), reasons])
    refused, adult = report["refused"], report["pass"]["adult"]
    worst = max(report["strangers"], key=lambda kind: report["strangers"][kind]["share"])
    return prose.STRANGERS.format(
        n=refused["n"],
        refused=refused["refused"],
        share=percent(refused["share"]),
        adult=adult["admitted"],
        adults=adult["n"],
        worst=worst,
        worst_n=report["strangers"][worst]["n"],
        worst_admitted=report["strangers"][worst]["admitted"],
        command=report["command"],
        table=markdown_table(rows),
    )


def saliency(metrics: Metrics) -> str:
    """Return what the maps were measured to be worth, empty where they were not."""
    report = metrics.get("saliency")
    if not report:
        return ""
    return prose.SALIENCY.format(
        films=report["films"],
        marked=report["marked_films"],
        command=report["command"],
        faithfulness=markdown_table(_faithfulness(report)),
        randomisation=markdown_table(_randomisation(report)),
        frame=markdown_table(
            [["map of", "energy in the frame"], *([_source(s), _mean(row)] for s, row in report["frame"].items())]
        ),
        stability=markdown_table(_stability(report)),
        same_label=percent(report["marks"]["same_label"], digits=2),
        worst_label=percent(min(row["same_label"] for row in report["marks"]["by_mark"].values())),
        marks=markdown_table(_marks(report)),
    )


def _faithfulness(report: Metrics) -> list[list[str]]:
    rows = [["map of", "measure", "map", "random", "centre"]]
    for source, orders in report["faithfulness"].items():
        for kind in ("deletion", "insertion"):
            rows.append([_source(source), kind, *(_mean(orders[o][kind]) for o in ("map", "random", "centre"))])
    return rows


def _randomisation(report: Metrics) -> list[list[str]]:
    rows = [["map of", "last layer drawn anew", "every layer drawn anew"]]
    return rows + [[_source(s), _mean(row["head"]), _mean(row["all"])] for s, row in report["randomisation"].items()]


def _stability(report: Metrics) -> list[list[str]]:
    sources = list(report["frame"])
    rows = [["disturbance", "same answer", *(f"rank correlation, {_source(source)}" for source in sources)]]
    for name, row in report["stability"].items():
        alike = [_mean(row["rank_correlation"][source]) for source in sources]
        rows.append([name, percent(row["same_label"]), *alike])
    return rows


def _marks(report: Metrics) -> list[list[str]]:
    sources = list(report["frame"])
    rows = [["mark", "same answer", "largest change of a probability, mean", "drawn"]]
    rows[0] += [f"on it, {_source(source)}" for source in sources]
    for name, row in report["marks"]["by_mark"].items():
        on_it = [percent(row["peak_on_mark"][source]) for source in sources]
        change = f"{row['largest_change']:.3f}"
        rows.append([name, percent(row["same_label"]), change, percent(row["peak_moved_to_mark"]), *on_it])
    return rows


def _source(name: str) -> str:
    return "the ensemble" if name == ENSEMBLE else f"`{name}`"


def _mean(summary: Metrics) -> str:
    if summary["mean"] is None:
        return "-"
    return f"{summary['mean']:.3f} [{summary['low']:.3f}, {summary['high']:.3f}], n {summary['n']}"
