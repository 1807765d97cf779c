"""Score a folder of films by the road that a user's file takes, with intervals by patient.

    python scripts/evaluate.py ../shared/data/chest_xray/train --held-back --json held_back.json
    python scripts/evaluate.py ../shared/data/adult_cxr --json adult.json
    python scripts/evaluate.py ../shared/data/originals --parity-with ../shared/data/chest_xray/train --json parity.json

The folder holds NORMAL/ and PNEUMONIA/, the cause in the file name (_bacteria_ or _virus_), or one folder a class.
Where a film of PNEUMONIA states no cause, only normal-or-pneumonia figures are given. Films that admission refuses
are counted; files that cannot be read are not, are listed, and make the exit code 1. With --parity-with nothing is
scored: each film is compared with its namesake in the other folder.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.errors import PneumoNetError
from pneumonet.evaluation import Answer, answer_films, build_report
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.evaluation.parity import compare_forms
from pneumonet.evaluation.provenance import portable_path, provenance, write_report
from pneumonet.evaluation.report import PNEUMONIA
from pneumonet.evaluation.table import as_text
from pneumonet.model import PneumoNet
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.films import list_films, split_films


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--predictions", type=Path, metavar="CSV", help="write each film's probabilities here")
    parser.add_argument("--model", help="a snapshot folder or org/name on the Hub; the committed one by default")
    parser.add_argument("--revision", help="branch, tag or commit of a Hub repo")
    parser.add_argument(
        "--held-back",
        action="store_true",
        help="only the fold of the committed split that the weights were not trained on",
    )
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--parity-with", type=Path, metavar="FOLDER", help="compare with the same films in other form")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 where a file could not be read, 2 where nothing could be done."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    try:
        model = PneumoNet.from_pretrained(arguments.model, revision=arguments.revision, engine="torch")
        films = _films(model, arguments)
        known = _provenance(model, arguments, given)
        command = _compare if arguments.parity_with else _score
        return command(model, films, arguments, known)
    except (PneumoNetError, OSError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2


def _films(model: PneumoNet, arguments: argparse.Namespace) -> list[Path]:
    if not arguments.held_back:
        return list_films(arguments.folder)
    try:
        return split_films(arguments.folder, model.snapshot.config.held_back_fold)[1]
    except KeyError as error:
        raise ValueError(f"--held-back expected patients of the committed split only, got {error}") from error


def _score(model: PneumoNet, films: list[Path], arguments: argparse.Namespace, known: dict[str, Any]) -> int:
    answers, errors = answer_films(model, films, arguments.folder, progress=not arguments.quiet)
    if not answers:
        print(f"evaluate: none of the {len(errors)} files could be read", file=sys.stderr)
        return 1
    config = model.snapshot.config
    report = build_report(answers, errors, config, resamples=arguments.resamples, seed=arguments.seed)
    report |= known
    report["data"]["n"] = report.pop("n_per_class")
    print(as_text(report))
    write_report(report, arguments.json)
    if arguments.predictions:
        _write_predictions(arguments.predictions, answers)
    return 1 if errors else 0


def _compare(model: PneumoNet, films: list[Path], arguments: argparse.Namespace, known: dict[str, Any]) -> int:
    parity = compare_forms(model, films, list_films(arguments.parity_with), progress=not arguments.quiet)
    print(f"{parity['same_answer']} of {parity['n']} films get the same class in both forms")
    write_report(parity | known, arguments.json)
    return 0


def _provenance(model: PneumoNet, arguments: argparse.Namespace, given: Sequence[str]) -> dict[str, Any]:
    """Return which weights and films the figures are of, and the command that made them."""
    split = f"held-back fold {model.snapshot.config.held_back_fold}, by patient" if arguments.held_back else "all films"
    data = {"path": portable_path(str(arguments.folder)), "split": split}
    return provenance(model, "evaluate", given) | {"data": data}


def _write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    columns = ["file", "patient", "truth", "answer", *CLASS_NAMES, "prediction_set", "risk", "refused"]
    columns += [f"{member}.{name}" for member in answers[0].members for name in CLASS_NAMES]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(_row(answer) for answer in answers)


def _row(answer: Answer) -> list[Any]:
    truth = PNEUMONIA if answer.label_index == CAUSE_NOT_STATED else CLASS_NAMES[answer.label_index]
    return [
        answer.file,
        answer.patient,
        truth,
        CLASS_NAMES[answer.answer_index],
        *(f"{p:.6f}" for p in answer.probabilities),
        " ".join(CLASS_NAMES[i] for i in answer.prediction_set),
        answer.risk.value,
        " ".join(answer.refusals),
        *(f"{p:.6f}" for member in answer.members.values() for p in member),
    ]


if __name__ == "__main__":
    sys.exit(main())
