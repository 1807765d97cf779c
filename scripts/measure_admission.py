"""Measure whom admission lets pass (real films) and what it refuses (everything else).

    python scripts/measure_admission.py --json runs/admission.json

Strangers are drawn by code, are photographs of installed packages, real films spoilt in every way, and the pictures of
each --strangers folder. The films are those held back from training.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.evaluation.admitting import passing, refusals, strangers
from pneumonet.evaluation.provenance import provenance, write_report
from pneumonet.evaluation.table import aligned
from pneumonet.model import PneumoNet
from pneumonet.training.films import list_films, split_films


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a snapshot folder or org/name on the Hub; the committed one by default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument("--adult", type=Path, default=Path("../shared/data/adult_cxr"))
    parser.add_argument(
        "--strangers", type=Path, nargs="*", default=[Path("../shared/data/not_chest_xray/blood_smear")]
    )
    parser.add_argument("--films", type=int, default=100, help="real films to spoil")
    parser.add_argument("--count", type=int, default=60, help="pictures of each kind that is drawn")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    return parser


def measure(arguments: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    """Return the report: `pass` by source of films, `strangers` by kind, `refused` of all strangers."""
    model = PneumoNet.from_pretrained(arguments.model)
    held_back = split_films(arguments.data, model.snapshot.config.held_back_fold)[1]
    chosen = np.random.default_rng(arguments.seed).permutation(len(held_back))[: arguments.films]
    kinds = refusals(
        model,
        strangers(
            model,
            [held_back[i] for i in chosen],
            arguments.strangers,
            count=arguments.count,
            seed=arguments.seed,
        ),
    )
    # A header that names another part of the body is refused for certain, and says nothing of the picture.
    told = [row for kind, row in kinds.items() if not kind.startswith("DICOM")]
    n, admitted = (sum(row[key] for row in told) for key in ("n", "admitted"))
    return {
        "pass": {"held_back": passing(model, held_back), "adult": passing(model, list_films(arguments.adult))},
        "strangers": kinds,
        "refused": {"n": n, "refused": n - admitted, "share": round(1 - admitted / n, 6)},
        "seed": arguments.seed,
        **provenance(model, "measure_admission", given),
    }


def as_text(report: dict[str, Any]) -> str:
    """Return the report as aligned text."""
    rows = [["", "pictures", "admitted", "share", "reasons"]]
    for name, row in (*report["pass"].items(), *report["strangers"].items()):
        reasons = ", ".join(f"{code} {n}" for code, n in row["reasons"].items())
        rows.append([name, str(row["n"]), str(row["admitted"]), f"{row['share']:.3f}", reasons])
    refused = report["refused"]
    return f"{aligned(rows)}\n\nStrangers refused: {refused['refused']} of {refused['n']} ({refused['share']:.2%})"


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
