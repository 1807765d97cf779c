"""How a chest is presented: upright, as the training films are, or turned, negative, cut or doubled.

A linear classifier of a film's thumbnail. The chest's shape (shoulders above, heart and diaphragm below, air dark) is
so alike from film to film that no more is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pneumonet.calibration import softmax
from pneumonet.errors import SnapshotError
from pneumonet.language import said
from pneumonet.preprocessing import reduced, squash

THUMBNAIL_SIDE: Final = 32
UPRIGHT: Final = "upright"

Thumbnail = NDArray[np.float32]
Undo = Callable[[Thumbnail], Thumbnail]

# What each presentation means to a user, and how its picture would become an upright film, where it could.
REASONS: Final[dict[str, tuple[str, str]]] = {
    "upside_down": (
        "upside_down",
        said("The chest looks upside down. Turn the picture the right way up and try again."),
    ),
    "mirrored_top_to_bottom": (
        "upside_down",
        said("The chest looks upside down. Turn the picture the right way up and try again."),
    ),
    "on_its_left_side": ("on_its_side", said("The chest looks turned on its side. Turn it upright and try again.")),
    "on_its_right_side": ("on_its_side", said("The chest looks turned on its side. Turn it upright and try again.")),
    "inverted": ("inverted", said("The picture looks like a negative: air is white. Invert it and try again.")),
    "side_by_side": ("several_pictures", said("There seem to be two pictures side by side. Send one film alone.")),
    "stacked": ("several_pictures", said("There seem to be two pictures, one above the other. Send one film alone.")),
    **dict.fromkeys(
        ("top_left", "top_right", "bottom_left", "bottom_right"),
        ("part_of_a_chest", said("Only a part of a chest seems to be in the picture. Send the whole film.")),
    ),
}
UNDO: Final[dict[str, Undo]] = {
    "upside_down": lambda small: small[::-1, ::-1],
    "mirrored_top_to_bottom": lambda small: small[::-1],
    "on_its_left_side": lambda small: np.rot90(small, -1),
    "on_its_right_side": lambda small: np.rot90(small, 1),
    "inverted": lambda small: -small,
    "side_by_side": lambda small: small[:, : THUMBNAIL_SIDE // 2].repeat(2, axis=1),
    "stacked": lambda small: small[: THUMBNAIL_SIDE // 2].repeat(2, axis=0),
}
PRESENTATIONS: Final = (UPRIGHT, *REASONS)


def thumbnail(pixels: NDArray[np.float32]) -> Thumbnail:
    """Return a film (H, W) as (1024,) float32, 32 x 32 by rows, of mean 0 and deviation 1: exposure does not count."""
    return standardised(squash(reduced(pixels), THUMBNAIL_SIDE))


def standardised(small: NDArray[np.floating]) -> Thumbnail:
    """Return a (32, 32) picture as (1024,) float32 of mean 0 and deviation 1."""
    values = small.ravel()
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-3), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class PresentationClassifier:
    """A linear softmax classifier of thumbnails.

    Attributes:
        weight: (K, 1024) float32, a row for each of `PRESENTATIONS`.
        bias: (K,) float32.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = len(PRESENTATIONS), THUMBNAIL_SIDE**2
        if self.weight.shape != expected or self.bias.shape != expected[:1]:
            raise SnapshotError(f"Expected weights of a presentation classifier {expected}, got {self.weight.shape}.")
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise SnapshotError("The snapshot's presentation classifier holds numbers that are not finite.")

    @classmethod
    def load(cls, path: Path) -> "PresentationClassifier":
        """Read a classifier from a safetensors file.

        Raises:
            SnapshotError: If the file is missing, damaged, or of another shape.
        """
        try:
            tensors = load_file(path)
            return cls(tensors["weight"], tensors["bias"])
        except (OSError, KeyError, SafetensorError) as error:
            raise SnapshotError(f"The snapshot's {path.name} cannot be read.") from error

    def save(self, path: Path) -> None:
        """Write the classifier to a safetensors file."""
        # safetensors writes memory as it lies: an array that is not in C order would come back scrambled.
        save_file({"weight": np.ascontiguousarray(self.weight), "bias": self.bias}, path)

    def probabilities(self, thumbnails: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of each of `PRESENTATIONS`, (N, K), of thumbnails (N, 1024)."""
        return softmax(thumbnails @ self.weight.T + self.bias)

    def upright(self, thumbnails: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probability of an upright, whole chest, (N,), of thumbnails (N, 1024)."""
        return self.probabilities(thumbnails)[:, 0]
