"""What is known of an archive's films beside their pictures: each one's label, and its patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pneumonet.batch.patients import patients_of
from pneumonet.batch.rows import printable_path
from pneumonet.batch.sources import Films, column_of, csv_rows, paths_of
from pneumonet.errors import ConfigError
from pneumonet.evaluation.metrics import CAUSE_NOT_STATED
from pneumonet.evaluation.report import PNEUMONIA
from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.films import label_of

FOLDERS: Final = "folders"
_NAMES: Final = (*CLASS_NAMES, PNEUMONIA)


@dataclass(frozen=True)
class Labels:
    """The labels of films, by their paths in the results.

    Attributes:
        classes: Indices into `CLASS_NAMES`, or `CAUSE_NOT_STATED`.
        patients: Each film's patient.
        told_by: A sentence that says what told the patients.
    """

    classes: Mapping[str, int]
    patients: Mapping[str, str]
    told_by: str


def read_labels(choice: str, films: Films) -> Labels:
    """Return the labels of films; those without one have none here.

    Args:
        choice: `folders`, where a film's folder and name state its class as `scripts/evaluate.py` reads them, or a CSV
            with a column of paths, as the results will have them, a column `label` and, where they are known, a column
            `patient`.
        films: The films.

    Raises:
        ConfigError: If the CSV cannot be read, holds another label or lacks a patient, or no film has a label.
    """
    paths = [printable_path(name) for name in films.names]
    classes, patients = (_of_folders(films), None) if choice == FOLDERS else _of_csv(Path(choice))
    known = {path: classes[path] for path in paths if path in classes}
    if not known:
        raise ConfigError(
            f"None of the {len(paths)} films has a label.",
            hint="Name the folders NORMAL and PNEUMONIA, or list path,label in a CSV as the results write the paths.",
        )
    if patients is None:
        return Labels(known, *patients_of(list(known)))
    return Labels(known, patients, f"Patients are told by the column patient of {Path(choice).name}.")


def _of_folders(films: Films) -> dict[str, int]:
    labels = {}
    for name in films.names:
        try:
            # The source itself may be the folder of a class.
            labels[printable_path(name)] = _index(label_of(Path(films.location(name))) or PNEUMONIA)
        except ValueError:
            continue
    return labels


def _of_csv(path: Path) -> tuple[dict[str, int], dict[str, str] | None]:
    """Return each path's label, and its patient where there is a column of them."""
    if not path.is_file():
        raise ConfigError(f"There is no file of labels {str(path)!r}.", hint="Give a CSV of path,label, or folders.")
    rows = csv_rows(path)
    label_column = column_of(rows[0], ("label",)) if rows else None
    if label_column is None:
        raise ConfigError(f"{path.name} has no column named label.", hint="Its first line has to be path,label.")
    patient_column = column_of(rows[0], ("patient",))
    path_column, listed = paths_of(path, rows)
    labels, patients = {}, {}
    for row in listed:
        label, film = _cell(row, label_column).upper(), _cell(row, path_column)
        if not film or label not in _NAMES:
            raise ConfigError(f"{path.name} has a line without a label that is one of {', '.join(_NAMES)}.")
        labels[film] = _index(label)
        if patient_column is not None:
            patients[film] = _cell(row, patient_column)
    if patient_column is not None and not all(patients.values()):
        raise ConfigError(f"{path.name} has a line without a patient.", hint="Fill in the column, or take it away.")
    return labels, None if patient_column is None else patients


def _cell(row: Sequence[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _index(name: str) -> int:
    return CAUSE_NOT_STATED if name == PNEUMONIA else CLASS_NAMES.index(name)
