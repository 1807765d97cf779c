"""Measure the saliency maps of the committed weights on held-back films.

    python scripts/measure_saliency.py --json runs/saliency.json

Deletion and insertion against a random map and a centre prior, the parameter randomisation check, energy in the outer
frame, stability under a shift and JPEG, and what a burned-in word or a border does to the answer and to the map.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.evaluation import faithfulness as faith
from pneumonet.evaluation.provenance import provenance, write_report
from pneumonet.evaluation.table import aligned
from pneumonet.finding import ENSEMBLE, Finding
from pneumonet.members import Member
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import to_batch
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_radiograph
from pneumonet.saliency import scaled
from pneumonet.training.films import split_films

Findings = list[tuple[Radiograph, Finding]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a snapshot folder or org/name on the Hub; the committed one by default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument("--films", type=int, default=40, help="films for deletion, insertion and randomisation")
    parser.add_argument("--marked-films", type=int, default=120, help="films for marks and stability")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    return parser


def measure(arguments: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    """Return every figure, by what it measures."""
    model = PneumoNet.from_pretrained(arguments.model)
    held_back = split_films(arguments.data, model.snapshot.config.held_back_fold)[1]
    rng = np.random.default_rng(arguments.seed)
    order = rng.permutation(len(held_back))[: max(arguments.films, arguments.marked_films)]
    side = model.snapshot.config.input.size
    films = [faith.squashed(read_radiograph(held_back[i], limits=model.limits), side) for i in order]
    explained = [(film, faith.answered(model, [film])[0]) for film in tqdm(films, "maps", mininterval=5)]
    few, many = explained[: arguments.films], explained[: arguments.marked_films]
    return {
        "films": len(few),
        "marked_films": len(many),
        "faithfulness": _faithfulness(model, few, rng),
        "randomisation": _randomisation(model, few, arguments.seed),
        "frame": {
            source: faith.summarised([faith.frame_energy(f.saliency[source][f.label], side) for _, f in many])
            for source in _sources(many)
        },
        "stability": _stability(model, many),
        "marks": _marks(model, many),
        "seed": arguments.seed,
        **provenance(model, "measure_saliency", given),
    }


def _sources(explained: Findings) -> list[str]:
    return list(explained[0][1].saliency)


def _faithfulness(model: PneumoNet, explained: Findings, rng: np.random.Generator) -> dict[str, Any]:
    curves = [
        faith.deletion_and_insertion(model, film, finding, rng)
        for film, finding in tqdm(explained, "deletion and insertion", mininterval=5)
    ]
    return {
        source: {
            order: {
                kind: faith.summarised([getattr(of_film[source][order], kind) for of_film in curves])
                for kind in ("deletion", "insertion")
            }
            for order in ("map", "random", "centre")
        }
        for source in _sources(explained)
    }


def _randomisation(model: PneumoNet, explained: Findings, seed: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    ensembles: list[dict[str, Any]] = [{} for _ in explained]
    for config in model.snapshot.config.members:
        member = Member.load(config, model.snapshot.path)
        others = {name: faith.randomised(member, head_only=name == "head", seed=seed) for name in ("head", "all")}
        values: dict[str, list[float]] = {name: [] for name in others}
        for (film, finding), whole in zip(explained, ensembles, strict=True):
            batch = to_batch([film], model.snapshot.config.input)
            before = finding.saliency[member.config.name][finding.label]
            for name, other in others.items():
                after = faith.map_of(other, batch, finding.label)
                values[name].append(faith.similarity(before, after))
                whole[name] = whole.get(name, 0) + member.config.weight * scaled(after)
        result[member.config.name] = {name: faith.summarised(v) for name, v in values.items()}
    result[ENSEMBLE] = {
        name: faith.summarised(
            [
                faith.similarity(finding.saliency[ENSEMBLE][finding.label], whole[name])
                for (_, finding), whole in zip(explained, ensembles, strict=True)
            ]
        )
        for name in ("head", "all")
    }
    return result


def _stability(model: PneumoNet, explained: Findings) -> dict[str, Any]:
    same: dict[str, list[bool]] = {}
    alike: dict[str, dict[str, list[float]]] = {}
    for film, finding in tqdm(explained, "stability", mininterval=5):
        others = faith.disturbed(film)
        for name, other in zip(others, faith.answered(model, list(others.values())), strict=True):
            same.setdefault(name, []).append(other.label == finding.label)
            for source, maps in finding.saliency.items():
                value = faith.similarity(maps[finding.label], other.saliency[source][finding.label])
                alike.setdefault(name, {}).setdefault(source, []).append(value)
    return {
        name: {
            "same_label": float(np.mean(same[name])),
            "rank_correlation": {source: faith.summarised(values) for source, values in alike[name].items()},
        }
        for name in same
    }


def _marks(model: PneumoNet, explained: Findings) -> dict[str, Any]:
    rows: dict[str, list[tuple[bool, float, bool, dict[str, bool]]]] = {}
    for film, finding in tqdm(explained, "marks", mininterval=5):
        marked = faith.marked(film)
        findings = faith.answered(model, [other for other, _ in marked.values()])
        for (name, (_, ink)), other in zip(marked.items(), findings, strict=True):
            before = faith.peak_on(finding.saliency[ENSEMBLE][finding.label], ink)
            after = {source: faith.peak_on(maps[other.label], ink) for source, maps in other.saliency.items()}
            change = max(abs(other.probabilities[c] - p) for c, p in finding.probabilities.items())
            rows.setdefault(name, []).append(
                (other.label == finding.label, change, after[ENSEMBLE] and not before, after)
            )
    summary = {
        name: {
            "same_label": float(np.mean([same for same, _, _, _ in of_mark])),
            "largest_change": float(np.mean([change for _, change, _, _ in of_mark])),
            "peak_moved_to_mark": float(np.mean([moved for _, _, moved, _ in of_mark])),
            "peak_on_mark": {
                source: float(np.mean([on[source] for _, _, _, on in of_mark])) for source in _sources(explained)
            },
        }
        for name, of_mark in rows.items()
    }
    return {"same_label": float(np.mean([row["same_label"] for row in summary.values()])), "by_mark": summary}


def as_text(report: dict[str, Any]) -> str:
    """Return the report as aligned text."""
    rows = [["deletion (low is good), insertion (high is good)", "map", "random", "centre"]]
    for source, orders in report["faithfulness"].items():
        for kind in ("deletion", "insertion"):
            rows.append([f"{source}: {kind}", *(f"{orders[o][kind]['mean']:.3f}" for o in ("map", "random", "centre"))])
    marks = [["mark", "same label", "mean largest change", "peak moved to it"]]
    for name, row in report["marks"]["by_mark"].items():
        marks.append(
            [name, f"{row['same_label']:.3f}", f"{row['largest_change']:.3f}", f"{row['peak_moved_to_mark']:.3f}"]
        )
    lines = [f"{name}: same label {row['same_label']:.3f}" for name, row in report["stability"].items()]
    lines += [f"{name}: rank correlation with random weights {row}" for name, row in report["randomisation"].items()]
    lines += [f"{source}: energy in the outer frame {row['mean']:.3f}" for source, row in report["frame"].items()]
    return "\n".join([aligned(rows), "", aligned(marks), "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    report = measure(arguments, given)
    print(as_text(report))
    write_report(report, arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
