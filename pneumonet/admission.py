"""Admission: is this a chest film that the model knows? Reasons when it is not, cheap checks first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from pneumonet.errors import Reason, SnapshotError
from pneumonet.members import squash
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AdmissionConfig

# The film itself, made small, is a feature space too: it tells a hand or a page from a chest where a backbone, which
# has seen chests only, may not.
THUMBNAIL: Final = "thumbnail"
_THUMBNAIL_SIDE: Final = 32
_COARSE_SIDE: Final = 16

# DICOM defined terms for a plain radiograph; an undefined or absent modality is no ground to refuse.
_RADIOGRAPH_MODALITIES: Final = frozenset({"CR", "DX", "DR", "RG", "OT", "SC", ""})
_CHEST_WORDS: Final = ("CHEST", "THORAX", "LUNG", "TORAX")
_LATERAL_VIEWS: Final = frozenset({"LL", "RL", "LATERAL", "LLD", "RLD", "LAT"})


@dataclass(frozen=True)
class Admission:
    """Whether a film is accepted, and each reason why not."""

    accepted: bool
    reasons: tuple[Reason, ...] = ()


def thumbnail(film: Radiograph) -> NDArray[np.float32]:
    """Return the film as a (1024,) float32 vector: 32 x 32, of mean 0 and deviation 1, so exposure does not count."""
    small = squash(film.pixels, _THUMBNAIL_SIDE).ravel()
    return np.asarray((small - small.mean()) / max(float(small.std()), 1e-3), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Where the training films lie in a space of D features: a Gaussian of a few directions and a rest.

    Tipping and Bishop, "Probabilistic principal component analysis", JRSS B 1999.

    Attributes:
        mean: (D,) float32.
        components: (K, D) float32, orthonormal rows.
        deviations: (K,) float32, of the training films along each component.
        rest: Deviation along each direction that is not a component.
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    deviations: NDArray[np.float32]
    rest: float

    @classmethod
    def fit(cls, features: NDArray[np.float32], n_components: int) -> "FeatureSpace":
        """Fit the space to training films, features (N, D) float32."""
        mean = features.mean(axis=0)
        _, singular, rows = np.linalg.svd(features - mean, full_matrices=False)
        variances = singular**2 / (len(features) - 1)
        k = min(n_components, len(variances) - 1)
        rest = float(variances[k:].sum() / (features.shape[1] - k))
        return cls(
            mean.astype(np.float32),
            rows[:k].astype(np.float32),
            np.sqrt(variances[:k]).astype(np.float32),
            float(np.sqrt(rest)),
        )

    def distance(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the Mahalanobis distance (N,) of films (N, D), divided by sqrt(D): about 1 for a training film."""
        centred = (features - self.mean).astype(np.float64)
        scores = centred @ self.components.T
        squared_rest = np.clip((centred**2).sum(axis=1) - (scores**2).sum(axis=1), 0, None)
        squared = ((scores / self.deviations) ** 2).sum(axis=1) + squared_rest / self.rest**2
        distance: NDArray[np.float64] = np.sqrt(squared / features.shape[1])
        return distance


def save_spaces(spaces: Mapping[str, FeatureSpace], path: Path) -> None:
    """Write feature spaces by name to a safetensors file."""
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, space in spaces.items():
        tensors[f"{name}.mean"] = space.mean
        tensors[f"{name}.components"] = np.ascontiguousarray(space.components)
        tensors[f"{name}.deviations"] = space.deviations
        tensors[f"{name}.rest"] = np.array([space.rest], dtype=np.float32)
    save_file(tensors, path)


def load_spaces(path: Path) -> dict[str, FeatureSpace]:
    """Read feature spaces by name.

    Raises:
        SnapshotError: If the file is missing, damaged, or lacks a tensor.
    """
    try:
        tensors = load_file(path)
        names = sorted({key.rsplit(".", 1)[0] for key in tensors})
        return {
            name: FeatureSpace(
                tensors[f"{name}.mean"],
                tensors[f"{name}.components"],
                tensors[f"{name}.deviations"],
                float(tensors[f"{name}.rest"][0]),
            )
            for name in names
        }
    except (OSError, KeyError, SafetensorError) as error:
        raise SnapshotError(f"The snapshot's {path.name} cannot be read.") from error


class AdmissionCheck:
    """The checks of one snapshot."""

    def __init__(self, config: AdmissionConfig, spaces: Mapping[str, FeatureSpace], widths: Mapping[str, int]) -> None:
        """Pair thresholds with spaces.

        Args:
            config: The thresholds.
            spaces: Feature spaces by name.
            widths: Number of pooled features of each member, by its name.

        Raises:
            SnapshotError: If a threshold has no space, or one of another width than its features.
        """
        expected = {THUMBNAIL: _THUMBNAIL_SIDE**2, **widths}
        for name in config.max_distance:
            if name not in expected or name not in spaces or spaces[name].mean.shape != (expected[name],):
                raise SnapshotError(f"The snapshot's {config.features_file} has no space that fits {name}.")
        self.config, self.spaces = config, spaces

    def first_look(self, film: Radiograph) -> tuple[Reason, ...]:
        """Return what the header and the pixels say against a film, before any backbone has seen it."""
        return (*header_reasons(film), *pixel_reasons(film, self.config))

    def decide(
        self, first_look: tuple[Reason, ...], film: Radiograph, pooled: Mapping[str, NDArray[np.float32]]
    ) -> Admission:
        """Decide on a film that the backbones have seen.

        Args:
            first_look: What `first_look` returned for it.
            film: The film.
            pooled: For each member by name, the film's (C,) pooled features.
        """
        reasons = first_look or tuple(self.distance_reasons(film, pooled))
        return Admission(not reasons, reasons)

    def distance_reasons(self, film: Radiograph, pooled: Mapping[str, NDArray[np.float32]]) -> list[Reason]:
        """Return a reason if the film lies far from every chest film of the training set in any space."""
        vectors = {THUMBNAIL: thumbnail(film), **pooled}
        for name, limit in self.config.max_distance.items():
            distance = float(self.spaces[name].distance(vectors[name][None])[0])
            if distance > limit:
                message = (
                    f"It lies {distance / limit:.1f} times as far from the films the model was trained on "
                    "as nearly all chest films do."
                )
                return [Reason("unlike_chest_films", message)]
        return []


def header_reasons(film: Radiograph) -> list[Reason]:
    """Return what a DICOM header says against a frontal chest radiograph."""
    reasons = []
    if film.modality is not None and film.modality.strip().upper() not in _RADIOGRAPH_MODALITIES:
        message = "Its header says that it was made by another kind of device than plain radiography."
        reasons.append(Reason("wrong_modality", message))
    body_part = (film.body_part or "").strip().upper()
    if body_part and not any(word in body_part for word in _CHEST_WORDS):
        reasons.append(Reason("wrong_body_part", "Its header names another part of the body than the chest."))
    if (film.view_position or "").strip().upper() in _LATERAL_VIEWS:
        reasons.append(Reason("lateral_view", "Its header says it is a side view; the model knows frontal films only."))
    return reasons


def pixel_reasons(film: Radiograph, config: AdmissionConfig) -> list[Reason]:
    """Return what the pixels alone say against a chest film."""
    reasons = []
    short, long = sorted((film.height, film.width))
    if short < config.min_side:
        message = f"It is {film.width} x {film.height} pixels; at least {config.min_side} on each side are needed."
        reasons.append(Reason("too_small", message))
    if long > short * config.max_aspect:
        message = (
            f"It is {long / short:.1f} times as long as wide; a chest film is at most {config.max_aspect:g} times."
        )
        reasons.append(Reason("extreme_aspect", message))
    if float(film.pixels.std()) < config.min_contrast:
        reasons.append(Reason("blank", "It is of nearly one tone."))
    if film.colourfulness > config.max_colourfulness:
        reasons.append(Reason("colourful", "It is in colour; a chest X-ray is grey."))
    if not reasons and detail(film) < config.min_detail:
        reasons.append(Reason("featureless", "It has no fine structure, such as ribs and vessels give a film."))
    if not reasons and _is_page(film):
        reasons.append(Reason("text_page", "It is nearly black and white, as a page of text or a drawing is."))
    if not reasons and _is_inverted(film):
        reasons.append(Reason("inverted", "Light and dark look swapped: bone should be bright and air dark."))
    return reasons


def detail(film: Radiograph) -> float:
    """Return the share of a film's deviation that is finer than a sixteenth of its sides, in [0, 1]."""
    small = squash(film.pixels, 8 * _COARSE_SIDE)
    coarse = Image.fromarray(squash(small, _COARSE_SIDE)).resize(small.shape[::-1], Image.Resampling.BICUBIC)
    return float((small - np.asarray(coarse)).std() / max(float(small.std()), 1e-6))


def _is_page(film: Radiograph) -> bool:
    """A page: most pixels are white, and few are of a tone between white and black."""
    white, between = film.pixels > 0.9, (film.pixels > 0.1) & (film.pixels <= 0.9)
    return bool(white.mean() > 0.5 and between.mean() < 0.2)


def _is_inverted(film: Radiograph) -> bool:
    """A negative: the corners, air on nearly every film, are far brighter than the middle, the spine and heart."""
    small = squash(film.pixels, 16)
    corners = np.concatenate([small[:3, :2].ravel(), small[:3, -2:].ravel()])
    middle = small[4:12, 6:10]
    return bool(np.median(corners) > 0.7 and np.median(corners) - np.median(middle) > 0.25)
