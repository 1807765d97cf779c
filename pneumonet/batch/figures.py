"""A batch's films against their labels: the figures that `scripts/evaluate.py` prints, of anybody's own archive."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from pneumonet.batch.rows import PROBABILITY_COLUMNS, Row, printable_path
from pneumonet.batch.sources import Films, column_of, csv_rows, paths_of
from pneumonet.errors import ConfigError
from pneumonet.evaluation import Answer, FilmError, build_report
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.evaluation.report import PNEUMONIA
from pneumonet.evaluation.table import as_text
from pneumonet.snapshot import SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES, Risk
from pneumonet.training.films import label_of, patient_of

FOLDERS: Final = "folders"
_NAMES: Final = (*CLASS_NAMES, PNEUMONIA)


def read_labels(choice: str, films: Films) -> dict[str, int]:
    """Return the labels of films by their paths in the results: indices into `CLASS_NAMES`, or `CAUSE_NOT_STATED`.

    Args:
        choice: `folders`, where a film's folder and name state its class as `scripts/evaluate.py` reads them, or a CSV
            with a column of paths, as the results will have them, and a column `label`.
        films: The films; those without a label have none here.

    Raises:
        ConfigError: If the CSV cannot be read, holds another label, or no film has one.
    """
    paths = [printable_path(name) for name in films.names]
    labels = _of_folders(films) if choice == FOLDERS else _of_csv(Path(choice))
    known = {path: labels[path] for path in paths if path in labels}
    if not known:
        raise ConfigError(
            f"None of the {len(paths)} films has a label.",
            hint="Name the folders NORMAL and PNEUMONIA, or list path,label in a CSV as the results write the paths.",
        )
    return known


def figures_of(results: Path, labels: Mapping[str, int], config: SnapshotConfig) -> str:
    """Return the figures of a batch's labelled films, as `scripts/evaluate.py` prints them."""
    answers: list[Answer] = []
    errors: list[FilmError] = []
    with pq.ParquetFile(results) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                if row["path"] not in labels:
                    continue
                if row["label"] is None:
                    errors.append(FilmError(row["path"], row["error_code"]))
                else:
                    answers.append(_answer(row, labels[row["path"]]))
    if not answers:
        return f"None of the {len(errors)} labelled films could be answered, so there are no figures."
    report = build_report(answers, errors, config)
    report["data"] = {"n": report.pop("n_per_class")}
    return as_text(report)


def _of_folders(films: Films) -> dict[str, int]:
    labels = {}
    for name in films.names:
        try:
            # The source itself may be the folder of a class.
            labels[printable_path(name)] = _index(label_of(Path(films.location(name))) or PNEUMONIA)
        except ValueError:
            continue
    return labels


def _of_csv(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise ConfigError(f"There is no file of labels {str(path)!r}.", hint="Give a CSV of path,label, or folders.")
    rows = csv_rows(path)
    label_column = column_of(rows[0], ("label",)) if rows else None
    if label_column is None:
        raise ConfigError(f"{path.name} has no column named label.", hint="Its first line has to be path,label.")
    path_column, listed = paths_of(path, rows)
    labels = {}
    for row in listed:
        if len(row) <= max(path_column, label_column) or row[label_column].upper() not in _NAMES:
            raise ConfigError(f"{path.name} has a line without a label that is one of {', '.join(_NAMES)}.")
        labels[row[path_column]] = _index(row[label_column].upper())
    return labels


def _index(name: str) -> int:
    return CAUSE_NOT_STATED if name == PNEUMONIA else CLASS_NAMES.index(name)


def _answer(row: Row, label_index: int) -> Answer:
    return Answer(
        file=row["path"],
        patient=patient_of(Path(row["path"])),
        label_index=label_index,
        probabilities=_ordered(row),
        members={member["name"]: _ordered(member) for member in row["members"]},
        prediction_set=tuple(CLASS_NAMES.index(name) for name in row["prediction_set"]),
        risk=Risk(row["risk"]),
        refusals=tuple(row["admission_reasons"]),
    )


def _ordered(columns: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(columns[PROBABILITY_COLUMNS[name]] for name in CLASS_NAMES)
