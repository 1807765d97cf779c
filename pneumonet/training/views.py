"""A fixed set of augmented views of the training films, with what the teachers say of each.

The teachers are asked once, not at every step of every student: a whole ensemble of them then costs a student nothing.
Student and teachers see the same view (Beyer et al., "Knowledge distillation: a good teacher is patient and
consistent", CVPR 2022); with fewer rounds of views than epochs, each round comes again.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.format import open_memmap
from tqdm import tqdm

from pneumonet.taxonomy import CLASS_NAMES
from pneumonet.training.augment import augment, resized
from pneumonet.training.films import STORED_SIZE, FilmSet
from pneumonet.training.teacher import Teacher

VIEWS: Final = "views.json"
_BATCH: Final = 32


@dataclass(frozen=True)
class Lesson:
    """What the teachers say of N views.

    Attributes:
        probabilities: (N, 3) float32, the mean of all teachers.
        maps: (N, C, h, w) float32, the first teacher's last convolutional features, each channel standardised.
    """

    probabilities: torch.Tensor
    maps: torch.Tensor


@dataclass(frozen=True)
class ViewSet:
    """Views on disk, read as they are needed.

    Attributes:
        pixels: (R, N, S, S) uint8: R rounds of one view of each of N films.
        probabilities: (R, N, 3) float32.
        maps: (R, N, C, h, w) float16, as the teacher gave them.
        mean: (C,) float32, of the first round's maps.
        std: (C,) float32, likewise.
        held_back_fold: The fold that no teacher saw.
    """

    pixels: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float16]
    mean: torch.Tensor
    std: torch.Tensor
    held_back_fold: int

    def __len__(self) -> int:
        return int(self.pixels.shape[1])

    @classmethod
    def open(cls, folder: Path) -> "ViewSet":
        """Open a finished set.

        Raises:
            OSError: If the folder holds no views.
            ValueError: If some rounds are still to be made.
        """
        about = json.loads((folder / VIEWS).read_text())
        if about["done"] < about["rounds"]:
            raise ValueError(f"expected finished views, got {about['done']} of {about['rounds']} rounds in {folder}")
        pixels, probabilities, maps = (np.load(path, mmap_mode="r") for path in _arrays(folder))
        # A sample of the first round tells a channel's mean and spread closely enough.
        sample = torch.from_numpy(maps[0, :: max(1, maps.shape[1] // 500)].astype(np.float32))
        std, mean = torch.std_mean(sample, (0, 2, 3))
        return cls(pixels, probabilities, maps, mean, std.clamp(min=1e-3), about["held_back_fold"])

    def take(self, epoch: int, films: torch.Tensor) -> tuple[torch.Tensor, Lesson]:
        """Return an epoch's views (n, 1, S, S), float32 in [0, 1], of the films of these numbers, and their lesson."""
        at = epoch % len(self.pixels)
        rows = films.numpy()
        pixels = torch.from_numpy(self.pixels[at, rows]).unsqueeze(1).float() / 255
        maps = torch.from_numpy(self.maps[at, rows]).float()
        maps = (maps - self.mean.view(1, -1, 1, 1)) / self.std.view(1, -1, 1, 1)
        return pixels, Lesson(torch.from_numpy(self.probabilities[at, rows]), maps)


def make_views(
    folder: Path, films: FilmSet, teachers: Sequence[Teacher], rounds: int, size: int, seed: int, held_back_fold: int
) -> None:
    """Draw the views and ask the teachers, or go on after the last whole round.

    Args:
        folder: Where to write; made if missing.
        films: The training films.
        teachers: Finished runs; the first gives the maps.
        rounds: Views of each film.
        size: Side of the stored views in pixels; the teachers see them at the size that each was trained at last.
        seed: Of the augmentation.
        held_back_fold: The fold that the films leave out.

    Raises:
        ValueError: If a teacher saw the films held back, or the folder holds other views.
    """
    for teacher in teachers:
        if teacher.recipe["held_back_fold"] != held_back_fold:
            raise ValueError(f"expected teachers that have not seen the films held back here, got {teacher.name}")
    device = teachers[0].device
    folder.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "teachers": [teacher.name for teacher in teachers], "films": len(films), "rounds": rounds, "size": size,
        "seed": seed, "held_back_fold": held_back_fold, "done": 0, "seconds": 0.0,
    }  # fmt: skip
    found = _found(folder, about)
    shapes = _shapes(films, teachers[0], rounds, size)
    if found:
        about = found
    pixels, probabilities, maps = (
        np.load(path, mmap_mode="r+") if found else open_memmap(path, "w+", dtype, shape)
        for path, (dtype, shape) in zip(_arrays(folder), shapes, strict=True)
    )
    for at in range(about["done"], rounds):
        started = time.monotonic()
        generator = torch.Generator().manual_seed(seed * 1000 + at)
        for first in tqdm(range(0, len(films), _BATCH), desc=f"views {at + 1}/{rounds}", mininterval=5):
            rows = slice(first, first + _BATCH)
            views = augment(films.pixels[rows], STORED_SIZE, generator)
            # Rounded first: the teachers are to see what the student will be given.
            pixels[at, rows] = resized(views, size)[:, 0].mul(255).round().to(torch.uint8).numpy()
            answers = [teacher.answer(resized(views.to(device), teacher.size)) for teacher in teachers]
            probabilities[at, rows] = torch.stack([p for p, _ in answers]).mean(0).cpu().numpy()
            maps[at, rows] = answers[0][1].half().cpu().numpy()
        for array in (pixels, probabilities, maps):
            array.flush()
        about["done"] = at + 1
        about["seconds"] = round(about["seconds"] + time.monotonic() - started, 1)
        (folder / VIEWS).write_text(json.dumps(about, indent=2) + "\n")


def _arrays(folder: Path) -> list[Path]:
    return [folder / f"{name}.npy" for name in ("pixels", "probabilities", "maps")]


def _shapes(films: FilmSet, teacher: Teacher, rounds: int, size: int) -> list[tuple[type, tuple[int, ...]]]:
    blank = torch.zeros(1, 1, teacher.size, teacher.size, device=teacher.device)
    per_view = tuple(teacher.answer(blank)[1].shape[1:])
    n = len(films)
    return [
        (np.uint8, (rounds, n, size, size)),
        (np.float32, (rounds, n, len(CLASS_NAMES))),
        (np.float16, (rounds, n, *per_view)),
    ]


def _found(folder: Path, about: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / VIEWS
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    other = [key for key in about if key not in ("done", "seconds") and found.get(key) != about[key]]
    if other:
        raise ValueError(f"expected views of the same kind or none in {folder}, got others ({', '.join(other)})")
    return found
