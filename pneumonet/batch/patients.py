"""Which films of an archive are of one patient, so far as their paths tell: intervals are by patient."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pneumonet.training.films import label_of, patient_of

# As CheXpert (patient00001/study1/view1_frontal.jpg), MIMIC-CXR (p10/p10000032/s50414267/...), BIDS (sub-01) have it.
_PATIENT_FOLDER: Final = re.compile(r"(?:patient|person|subject|sub|p)[-_ ]?\d+", re.IGNORECASE)


def patients_of(paths: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return each film's patient, and a sentence that says what told them.

    A folder named as a patient's tells the patient. Else the films' own names do, as in `scripts/evaluate.py`, where
    none comes twice: names such as `view1.jpg` that come again in other folders say nothing of a patient, and a folder
    is taken for a patient's then, or, where folders are classes, each film.

    Args:
        paths: The films' paths, as the results have them.
    """
    places = {path: Path(path) for path in paths}
    folders = {path: _patient_folder(place) for path, place in places.items()}
    if all(folders.values()):
        return {path: str(folder) for path, folder in folders.items()}, "Patients are told by folders named as theirs."
    if not _names_come_again(list(places.values())):
        return {path: patient_of(place) for path, place in places.items()}, "Patients are told by the films' names."
    if any(_is_class(place) for place in places.values()):
        return {path: path for path in paths}, "Nothing tells the patients: each film counts as one."
    return {path: str(place.parent) for path, place in places.items()}, "Each folder counts as a patient."


def _patient_folder(path: Path) -> Path | None:
    # The nearest: of p10/p10000032 the first gathers the patients of a range.
    return next((folder for folder in path.parents if _PATIENT_FOLDER.fullmatch(folder.name)), None)


def _names_come_again(paths: Sequence[Path]) -> bool:
    folders = defaultdict(set)
    for path in paths:
        folders[path.name].add(path.parent)
    return any(len(of_name) > 1 for of_name in folders.values())


def _is_class(path: Path) -> bool:
    try:
        label_of(path)
    except ValueError:
        return False
    return True
