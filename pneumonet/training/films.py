"""The training films in memory, and which patient each belongs to."""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pneumonet.taxonomy import BACTERIAL, CLASS_NAMES, VIRAL

SPLIT_FILE = Path(__file__).with_name("split.json")
STORED_SIZE = 224
_PATIENT = re.compile(r"(person\d+|(?:NORMAL2-)?IM-\d+)")


def label_of(path: Path) -> str | None:
    """Return the class that a film's folder and name state, None for pneumonia of no stated cause.

    Folders are `NORMAL/` and `PNEUMONIA/` with `_bacteria_` or `_virus_` in the name (the published set),
    or one folder a class, named as in `CLASS_NAMES`.

    Raises:
        ValueError: If the folder names no class.

    >>> label_of(Path("PNEUMONIA/person1_bacteria_2.jpeg"))
    'BACTERIAL_PNEUMONIA'
    """
    folder = path.parent.name
    if folder in CLASS_NAMES:
        return folder
    if folder == "PNEUMONIA":
        if "_bacteria_" in path.name:
            return BACTERIAL
        return VIRAL if "_virus_" in path.name else None
    raise ValueError(f"expected a folder NORMAL, PNEUMONIA or one of {', '.join(CLASS_NAMES)}, got {folder!r}")


def patient_of(path: Path) -> str:
    """Return the patient that a film's name states; where none is known, the part before the first underscore.

    A part without a digit, as in `IMG_1.png`, is no patient: each such film is one of its own.

    >>> patient_of(Path("person1000_virus_1681.jpeg")), patient_of(Path("IM-0115-0001-0002.jpeg"))
    ('person1000', 'IM-0115')
    >>> patient_of(Path("00000032_012.png"))
    '00000032'
    """
    match = _PATIENT.match(path.name)
    if match:
        return match.group(0)
    part = path.stem.split("_")[0]
    return part if any(character.isdigit() for character in part) else path.stem


def list_films(folder: Path) -> list[Path]:
    """Return the films below a folder of class folders, sorted.

    Raises:
        FileNotFoundError: If there are none.
    """
    # The content decides what a file is, at every door: none is passed over for its name.
    films = sorted(path for path in folder.glob("*/*") if path.is_file() and not path.name.startswith("."))
    if not films:
        raise FileNotFoundError(f"expected NORMAL/ and PNEUMONIA/ (or a folder a class) with films in {folder}")
    return films


def assign_folds(films: Iterable[Path], folds: int, seed: int) -> dict[str, int]:
    """Assign each patient to one of `folds` folds, each fold with its share of each class.

    A patient with films of several classes counts as a group of its own kind, so that no class gathers in one fold.
    """
    kinds: dict[str, set[str]] = defaultdict(set)
    for film in films:
        kinds[patient_of(film)].add(str(label_of(film)))
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, labels in sorted(kinds.items()):
        groups[tuple(sorted(labels))].append(patient)
    rng = random.Random(seed)
    fold_of: dict[str, int] = {}
    for _, patients in sorted(groups.items()):
        rng.shuffle(patients)
        fold_of.update({patient: i % folds for i, patient in enumerate(patients)})
    return dict(sorted(fold_of.items()))


def load_split(path: Path = SPLIT_FILE) -> dict[str, int]:
    """Return the committed split: patient -> fold."""
    return dict(json.loads(path.read_text())["fold_of_patient"])


@dataclass(frozen=True)
class FilmSet:
    """Films held in memory.

    Attributes:
        pixels: (N, 1, 224, 224) uint8, black = air.
        labels: (N,) int64, indices into `CLASS_NAMES`.
    """

    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def read(cls, films: list[Path]) -> "FilmSet":
        """Read labelled films, squashed to 224 x 224 as the published set was.

        Raises:
            ValueError: If a film is of pneumonia whose cause is not stated.
        """
        names = [label_of(film) for film in films]
        if None in names:
            raise ValueError(f"expected _bacteria_ or _virus_ in the name of {films[names.index(None)].name}")
        pixels = torch.empty(len(films), 1, STORED_SIZE, STORED_SIZE, dtype=torch.uint8)
        for i, film in enumerate(films):
            with Image.open(film) as image:
                grey = image.convert("L")
                if grey.size != (STORED_SIZE, STORED_SIZE):
                    grey = grey.resize((STORED_SIZE, STORED_SIZE), Image.Resampling.BILINEAR)
                pixels[i, 0] = torch.from_numpy(np.asarray(grey).copy())
        return cls(pixels, torch.tensor([CLASS_NAMES.index(str(name)) for name in names]))


def split_films(folder: Path, held_back_fold: int) -> tuple[list[Path], list[Path]]:
    """Return (training, held-back) films of the committed split, by patient.

    Raises:
        KeyError: If a film's patient is not in the split file.
    """
    fold_of = load_split()
    films = list_films(folder)
    held_back = [film for film in films if fold_of[patient_of(film)] == held_back_fold]
    training = [film for film in films if fold_of[patient_of(film)] != held_back_fold]
    return training, held_back
