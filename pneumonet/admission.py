"""Admission: is this a chest film that the model knows? Reasons when it is not, cheap checks first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumonet.errors import Reason, SnapshotError
from pneumonet.feature_space import FeatureSpace
from pneumonet.language import said
from pneumonet.preprocessing import reduced
from pneumonet.presentation import (
    PRESENTATIONS,
    REASONS,
    THUMBNAIL_SIDE,
    UNDO,
    PresentationClassifier,
    Thumbnail,
    standardised,
    thumbnail,
)
from pneumonet.radiograph import Radiograph
from pneumonet.snapshot import AdmissionConfig

# The film itself, made small, is a feature space too: it tells a hand or a page from a chest where a backbone, which
# has seen chests only, may not.
THUMBNAIL: Final = "thumbnail"
# A film holds more than a picture of these sides does; one that was blown up from so few pixels, or blurred, does not.
_COARSE_SIDES: Final = (16, 32)

# DICOM defined terms for a plain radiograph; an undefined or absent modality is no ground to refuse.
_RADIOGRAPH_MODALITIES: Final = frozenset({"CR", "DX", "DR", "RG", "OT", "SC", ""})
_UNLIKE: Final = Reason(
    "unlike_chest_films", said("It has not the shape of the chest films that the model was trained on.")
)
_CHEST_WORDS: Final = ("CHEST", "THORAX", "LUNG", "TORAX")
# DICOM defined terms of side, decubitus and oblique views, and what people write in their place.
_NOT_FRONTAL: Final = frozenset({"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO"})
_NOT_FRONTAL_WORDS: Final = ("LAT", "OBL", "DECUB", "LORDOTIC", "AXIAL")


@dataclass(frozen=True)
class Admission:
    """Whether a film is accepted, and each reason why not."""

    accepted: bool
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, eq=False)
class FirstLook:
    """What a film shows before any backbone has seen it: reasons against it, and its thumbnail."""

    reasons: tuple[Reason, ...]
    thumbnail: Thumbnail


class AdmissionCheck:
    """The checks of one snapshot."""

    def __init__(
        self,
        config: AdmissionConfig,
        presentation: PresentationClassifier,
        spaces: Mapping[str, FeatureSpace],
        widths: Mapping[str, int],
    ) -> None:
        """Pair thresholds with what they are thresholds of.

        Args:
            config: The thresholds.
            presentation: Tells an upright, whole chest from one that is not.
            spaces: Feature spaces by name.
            widths: Number of pooled features of each member, by its name.

        Raises:
            SnapshotError: If a threshold has no space, or one of another width than its features.
        """
        expected = {THUMBNAIL: THUMBNAIL_SIDE**2, **widths}
        for name in config.max_distance:
            if name not in expected or name not in spaces or spaces[name].mean.shape != (expected[name],):
                raise SnapshotError(f"The snapshot's {config.features_file} has no space that fits {name}.")
        self.config, self.presentation, self.spaces = config, presentation, spaces

    def first_look(self, film: Radiograph) -> FirstLook:
        """Return what the header and the pixels say against a film, before any backbone has seen it."""
        small = thumbnail(film.pixels)
        reasons = (*header_reasons(film), *pixel_reasons(film, self.config))
        # What is blank or a page has no presentation to speak of.
        return FirstLook(reasons or tuple(self.presentation_reasons(small)), small)

    def decide(self, first_look: FirstLook, pooled: Mapping[str, NDArray[np.float32]]) -> Admission:
        """Decide on a film that the backbones have seen.

        Args:
            first_look: What `first_look` returned for it.
            pooled: For each member by name, the film's (C,) pooled features.
        """
        reasons = first_look.reasons or tuple(self.distance_reasons({THUMBNAIL: first_look.thumbnail, **pooled}))
        return Admission(not reasons, reasons)

    def presentation_reasons(self, small: Thumbnail) -> list[Reason]:
        """Return a reason if a thumbnail shows no upright, whole chest; what is wrong only where undoing it helps."""
        probabilities = self.presentation.probabilities(small[None])[0]
        if probabilities[0] >= self.config.min_upright:
            return []
        name = PRESENTATIONS[1 + int(probabilities[1:].argmax())]
        is_known = self._is_upright_film(_undone(small, name)) if name in UNDO else self._excess(THUMBNAIL, small) <= 1
        return [Reason(*REASONS[name]) if is_known else _UNLIKE]

    def _is_upright_film(self, small: Thumbnail) -> bool:
        return bool(
            self.presentation.upright(small[None])[0] >= self.config.min_upright and self._excess(THUMBNAIL, small) <= 1
        )

    def _excess(self, name: str, vector: NDArray[np.float32]) -> float:
        """Return a distance in a space over its limit; 0 where the snapshot sets none."""
        limit = self.config.max_distance.get(name)
        return 0.0 if limit is None else float(self.spaces[name].distance(vector[None])[0]) / limit

    def distance_reasons(self, vectors: Mapping[str, NDArray[np.float32]]) -> list[Reason]:
        """Return a reason if a film, a vector in each space, lies far from the training set's chest films in any."""
        for name in self.config.max_distance:
            excess = self._excess(name, vectors[name])
            if not excess <= 1:
                message = said(
                    "It lies {excess:.1f} times as far from the films the model was trained on as nearly all chest "
                    "films do.",
                    excess=excess,
                )
                return [Reason("unlike_chest_films", message)]
        return []


def _undone(small: Thumbnail, name: str) -> Thumbnail:
    return standardised(UNDO[name](small.reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE)))


def header_reasons(film: Radiograph) -> list[Reason]:
    """Return what a DICOM header says against a frontal chest radiograph."""
    reasons = []
    if film.modality is not None and film.modality.strip().upper() not in _RADIOGRAPH_MODALITIES:
        message = said("Its header says that it was made by another kind of device than plain radiography.")
        reasons.append(Reason("wrong_modality", message))
    body_part = (film.body_part or "").strip().upper()
    if body_part and not any(word in body_part for word in _CHEST_WORDS):
        reasons.append(Reason("wrong_body_part", said("Its header names another part of the body than the chest.")))
    view = (film.view_position or "").strip().upper()
    if view in _NOT_FRONTAL or any(word in view for word in _NOT_FRONTAL_WORDS):
        reasons.append(
            Reason(
                "lateral_view",
                said("Its header says it is a side or another view; the model knows frontal films only."),
            )
        )
    return reasons


def pixel_reasons(film: Radiograph, config: AdmissionConfig) -> list[Reason]:
    """Return what the pixels alone say against a chest film."""
    reasons = []
    short, long = sorted((film.height, film.width))
    if short < config.min_side:
        message = said(
            "It is {width} x {height} pixels; at least {least} on each side are needed.",
            width=film.width,
            height=film.height,
            least=config.min_side,
        )
        reasons.append(Reason("too_small", message))
    if long > short * config.max_aspect:
        message = said(
            "It is {aspect:.1f} times as long as wide; a chest film is at most {most:g} times.",
            aspect=long / short,
            most=config.max_aspect,
        )
        reasons.append(Reason("extreme_aspect", message))
    if _deviation(film.pixels) < config.min_contrast:
        reasons.append(Reason("blank", said("It is of nearly one tone.")))
    if film.colourfulness > config.max_colourfulness:
        reasons.append(Reason("colourful", said("It is in colour; a chest X-ray is grey.")))
    if not reasons and detail(film) < config.min_detail:
        message = said(
            "It has no fine structure, such as ribs and vessels give a film: it is blurred, empty, or was enlarged "
            "from a very small picture."
        )
        reasons.append(Reason("featureless", message))
    if not reasons and _is_page(film):
        reasons.append(Reason("text_page", said("It is nearly black and white, as a page of text or a drawing is.")))
    return reasons


def detail(film: Radiograph) -> float:
    """Return the share of a film's deviation that a picture of 16 or 32 pixels a side could not hold, in [0, 1].

    The film is sampled at so few points and enlarged again in each usual way; the least that is left of it counts.
    """
    pixels = reduced(film.pixels)
    left = []
    for side in _COARSE_SIDES:
        # Not antialiased: an enlarged picture then gives back the very points that it was made of.
        coarse = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR)
        left += [_deviation(cv2.subtract(pixels, enlarged)) for enlarged in _enlarged(coarse, pixels.shape)]
    return min(left) / max(_deviation(pixels), 1e-6)


def _enlarged(coarse: NDArray[np.float32], shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    size = shape[1], shape[0]
    for way in (cv2.INTER_NEAREST_EXACT, cv2.INTER_LINEAR):
        yield np.asarray(cv2.resize(coarse, size, interpolation=way), dtype=np.float32)
    # Pillow's, which is what most enlarge with: OpenCV's cubic is of another sharpness.
    yield np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))


def _deviation(pixels: NDArray[np.float32]) -> float:
    return float(cv2.meanStdDev(pixels)[1][0, 0])


def _is_page(film: Radiograph) -> bool:
    """A page: most pixels are white, and few are of a tone between white and black."""
    if np.count_nonzero(film.pixels > 0.9) <= 0.5 * film.pixels.size:
        return False
    return bool(np.count_nonzero((film.pixels > 0.1) & (film.pixels <= 0.9)) < 0.2 * film.pixels.size)
