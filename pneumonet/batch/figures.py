"""A batch's films against their labels: the figures that `scripts/evaluate.py` prints, of anybody's own archive."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pneumonet.batch.labels import Labels
from pneumonet.batch.rows import PROBABILITY_COLUMNS, Row
from pneumonet.evaluation import Answer, FilmError, build_report
from pneumonet.evaluation.table import as_text
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, Risk


def figures_of(results: Path, labels: Labels, config: SnapshotConfig) -> str:
    """Return the figures of labelled films, as `scripts/evaluate.py` prints them, and what told the patients."""
    answers: list[Answer] = []
    errors: list[FilmError] = []
    with pq.ParquetFile(results) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if row["path"] not in labels.classes:
                    continue
                if row["label"] is None:
                    errors.append(FilmError(row["path"], row["error_code"]))
                else:
                    answers.append(_answer(row, labels))
    if not answers:
        return f"None of the {len(errors)} labelled films could be answered, so there are no figures."
    report = build_report(answers, errors, config)
    report["notes"].append(labels.told_by)
    report["data"] = {"n": report.pop("n_per_class")}
    return as_text(report)


def _answer(row: Row, labels: Labels) -> Answer:
    return Answer(
        file=row["path"],
        patient=labels.patients[row["path"]],
        label_index=labels.classes[row["path"]],
        probabilities=_ordered(row),
        members={member["name"]: _ordered(member) for member in row["members"]},
        prediction_set=tuple(CLASS_NAMES.index(name) for name in row["prediction_set"]),
        risk=Risk(row["risk"]),
        refusals=tuple(row["admission_reasons"]),
    )


def _ordered(columns: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(columns[PROBABILITY_COLUMNS[name]] for name in CLASS_NAMES)
