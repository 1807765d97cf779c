"""How far an engine's answers lie from the reference's, PyTorch in float32, on the held-back films.

    python scripts/compare_engines.py --json runs/engines.json

An engine that is to be chosen by itself keeps the label of at least 99.5 % of the films, and loses less than .002 of
AUROC. The exit code is 1 where one does not, so that scripts/make_weights.py writes no card of such weights.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.engines.graph import open_graph
from pneumonet.engines.openvino import OpenVinoEngine
from pneumonet.ensemble import Ensemble
from pneumonet.evaluation.metrics import flat_score
from pneumonet.evaluation.provenance import provenance, write_report
from pneumonet.evaluation.table import aligned
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.films import label_of, split_films

LEAST_AGREEMENT: Final = 0.995
MOST_AUROC_LOST: Final = 0.002


def answers(model: PneumoNet, films: Sequence[Path]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return probabilities (N, 3) and whether each film was admitted (N,)."""
    probabilities, admitted = [], []
    for film in tqdm(films, model.ensemble.engine.name, mininterval=5):
        finding = model.predict(film, force=True, saliency=False)
        probabilities.append([finding.probabilities[name] for name in CLASS_NAMES])
        admitted.append(finding.admission.accepted)
    return np.array(probabilities), np.array(admitted)


def compared(
    reference: tuple[NDArray[np.float64], NDArray[np.bool_]],
    other: tuple[NDArray[np.float64], NDArray[np.bool_]],
    labels: NDArray[np.integer],
) -> dict[str, Any]:
    """Return how an engine's answers differ from the reference's."""
    (p, admitted), (q, also) = reference, other
    before, after = ((score["auroc_macro"] or 0.0) for score in (flat_score(p, labels), flat_score(q, labels)))
    agreement = float((p.argmax(1) == q.argmax(1)).mean())
    return {
        "label_agreement": agreement,
        "admission_agreement": float((admitted == also).mean()),
        "auroc_lost": before - after,
        "accuracy": float((q.argmax(1) == labels).mean()),
        "largest_difference": float(np.abs(p - q).max()),
        "mean_difference": float(np.abs(p - q).mean()),
        "keeps_the_answers": agreement >= LEAST_AGREEMENT and before - after < MOST_AUROC_LOST,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Compare every precision that OpenVINO has here with PyTorch; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"), help="labelled films")
    parser.add_argument("--model", help="a snapshot folder; the committed one by default")
    parser.add_argument("--films", type=int, help="some of the films, drawn by a fixed seed; all by default")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        action="append",
        help="of OpenVINO; float32 and what it chooses here by default. A CPU without bfloat16 emulates it, slowly",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    arguments = parser.parse_args(argv)
    given = sys.argv[1:] if argv is None else argv
    model = PneumoNet.from_pretrained(arguments.model, engine="torch", device="cpu")
    config = model.snapshot.config
    _, films = split_films(arguments.data, config.held_back_fold)
    if arguments.films:
        films = [films[i] for i in np.random.default_rng(7).permutation(len(films))[: arguments.films]]
    labels = np.array([CLASS_NAMES.index(str(label_of(film))) for film in films])
    reference = answers(model, films)
    report: dict[str, Any] = provenance(model, "compare_engines", given) | {"films": len(films), "engines": {}}
    graph = open_graph(model.snapshot.path, config, Settings.from_environment().cache_dir)
    for precision in arguments.precision or dict.fromkeys(["float32", OpenVinoEngine(graph).precision]):
        ensemble = Ensemble(config.members, config.input, OpenVinoEngine(graph, precision))
        other = PneumoNet(model.snapshot, ensemble, model.admission, model.limits)
        report["engines"][f"openvino, {precision}"] = compared(reference, answers(other, films), labels)
    rows = [["engine", *next(iter(report["engines"].values()))]]
    rows += [
        [name, *(f"{v:.6f}" if isinstance(v, float) else str(v) for v in figures.values())]
        for name, figures in report["engines"].items()
    ]
    print(aligned(rows))
    write_report(report, arguments.json)
    return 0 if all(figures["keeps_the_answers"] for figures in report["engines"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
