"""Whether the saliency maps tell anything of the answer: measured, not only drawn.

Every map is that of the finding's own label, by each member and by the ensemble, on films squashed to the input's size.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pneumonet.engines.torch import TorchEngine
from pneumonet.finding import ENSEMBLE, Finding
from pneumonet.members import Member
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import squash
from pneumonet.radiograph import Radiograph
from pneumonet.saliency import grad_cam, lay_on_film
from pneumonet.taxonomy import CLASS_NAMES

# Shares of the film taken away or put in, from none to all.
_SHARES: Final = np.linspace(0, 1, 11)
_FRAME: Final = 0.1
_SHIFT: Final = 0.02
_WORDS: Final = ("R", "PORTABLE")
_CORNERS: Final = ((False, False), (False, True), (True, False), (True, True))
_BORDER: Final = 0.05

Map = NDArray[np.float32]


def squashed(film: Radiograph, side: int) -> Radiograph:
    """Return the film at the input's size, so that what is changed in it is what the backbones see changed."""
    return replace(film, pixels=squash(film.pixels, side))


def answered(model: PneumoNet, films: Sequence[Radiograph], *, saliency: bool = True) -> list[Finding]:
    """Answer films, whatever admission says of them."""
    answers = model.predict_batch(films, force=True, saliency=saliency)
    return [answer for answer in answers if isinstance(answer, Finding)]


def own_probability(finding: Finding, source: str, label: str) -> float:
    """Return what a source, a member or the ensemble, gives a class."""
    return (finding.probabilities if source == ENSEMBLE else finding.member_probabilities[source])[label]


@dataclass(frozen=True)
class Curve:
    """Areas under a deletion and an insertion curve, in [0, 1]: low and high tell of a map that points rightly."""

    deletion: float
    insertion: float


def deletion_and_insertion(
    model: PneumoNet, film: Radiograph, finding: Finding, rng: np.random.Generator
) -> dict[str, dict[str, Curve]]:
    """Take away, and put in, the film's pixels in the order of each map, and watch the label's probability.

    Petsiuk et al., "RISE", BMVC 2018; what is taken away is replaced by a strongly blurred film.

    Args:
        model: The model.
        film: (side, side), from `squashed`.
        finding: Its finding, with maps.
        rng: Source of the random maps.

    Returns:
        For each source the curves of its own map (`map`), of a random map of the same grid (`random`) and of a centre
        prior (`centre`).
    """
    side = film.height
    orders = {"centre": _centre(side)}
    for source, maps in finding.saliency.items():
        own = maps[finding.label]
        orders[source] = lay_on_film(own, side, side)
        orders[f"{source} random"] = lay_on_film(rng.random(own.shape, dtype=np.float32), side, side)
    curves = {name: _curves(model, film, finding.label, order) for name, order in orders.items()}
    return {
        source: {
            "map": curves[source][source],
            "random": curves[f"{source} random"][source],
            "centre": curves["centre"][source],
        }
        for source in finding.saliency
    }


def _curves(model: PneumoNet, film: Radiograph, label: str, order: Map) -> dict[str, Curve]:
    side = film.height
    blurred = cv2.GaussianBlur(film.pixels, (0, 0), side / 12)
    ranks = np.empty(side * side, dtype=np.int64)
    ranks[np.argsort(-order.ravel(), kind="stable")] = np.arange(side * side)
    first = [(ranks < share * side * side).reshape(side, side) for share in _SHARES]
    areas: dict[str, list[float]] = {}
    for taken, kept in ((blurred, film.pixels), (film.pixels, blurred)):
        findings = answered(
            model, [replace(film, pixels=np.where(mask, taken, kept)) for mask in first], saliency=False
        )
        for source in (ENSEMBLE, *findings[0].member_probabilities):
            values = [own_probability(finding, source, label) for finding in findings]
            areas.setdefault(source, []).append(float(np.trapezoid(values, _SHARES)))
    return {source: Curve(*pair) for source, pair in areas.items()}


def _centre(side: int) -> Map:
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    return np.asarray(np.exp(-2 * (x**2 + y**2)), dtype=np.float32)


def frame_energy(saliency_map: Map, side: int) -> float:
    """Return the share of a map that lies in the outer frame, a tenth of each side; nan for an empty map.

    The frame is 36 % of the picture; on most films it holds arms, neck, abdomen, air and markers, and the lungs' edges.
    """
    laid = lay_on_film(saliency_map, side, side)
    edge = round(_FRAME * side)
    total = float(laid.sum())
    return float("nan") if total <= 0 else 1 - float(laid[edge : side - edge, edge : side - edge].sum()) / total


def similarity(first: Map, second: Map) -> float:
    """Return Spearman's rank correlation of two maps of one grid; nan where one is even."""
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(spearmanr(first.ravel(), second.ravel()).statistic)


def randomised(member: Member, *, head_only: bool, seed: int) -> Member:
    """Return a member whose weights are drawn anew, of its last linear layer or of every layer.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: a map that stays as it was explains no weights.
    """
    torch.manual_seed(seed)
    if not head_only:
        return Member(member.config, timm.create_model(member.config.architecture, num_classes=len(CLASS_NAMES)))
    model = deepcopy(member.model)
    model.get_classifier().reset_parameters()
    return Member(member.config, model)


def map_of(member: Member, batch: NDArray[np.float32], label: str) -> Map:
    """Return a member's map, (h, w), of a batch of one."""
    features = TorchEngine([member]).features(batch)[member.config.name]
    return np.asarray(grad_cam(member.head(), features)[0, CLASS_NAMES.index(label)], dtype=np.float32)


def disturbed(film: Radiograph) -> dict[str, Radiograph]:
    """Return the film shifted by 2 % of its sides, and saved as JPEG of quality 75."""
    height, width = film.pixels.shape
    shift = np.array([[1, 0, _SHIFT * width], [0, 1, _SHIFT * height]], dtype=np.float32)
    moved = np.asarray(
        cv2.warpAffine(film.pixels, shift, (width, height), borderMode=cv2.BORDER_REPLICATE), dtype=np.float32
    )
    grey = np.round(film.pixels * 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 75])
    saved = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), dtype=np.float32) / np.float32(255)
    return {"shift of 2 %": replace(film, pixels=moved), "JPEG 75": replace(film, pixels=saved)}


def marked(film: Radiograph) -> dict[str, tuple[Radiograph, NDArray[np.bool_]]]:
    """Return the film with a word burned into each corner, and with a white border at each side, and where it is."""
    result = {}
    for word in _WORDS:
        for bottom, right in _CORNERS:
            name = f"{word!r}, {'lower' if bottom else 'upper'} {'right' if right else 'left'}"
            result[name] = _burned(film, _letters((film.height, film.width), word, bottom, right))
    for turns, name in enumerate(("top", "left", "bottom", "right")):
        shape = (film.height, film.width) if turns % 2 == 0 else (film.width, film.height)
        strip = np.zeros(shape, dtype=bool)
        strip[: max(1, round(_BORDER * strip.shape[0]))] = True
        result[f"white border, {name}"] = _burned(film, np.rot90(strip, turns))
    return result


def _burned(film: Radiograph, ink: NDArray[np.bool_]) -> tuple[Radiograph, NDArray[np.bool_]]:
    return replace(film, pixels=np.where(ink, np.float32(1), film.pixels)), ink


def _letters(shape: tuple[int, int], word: str, bottom: bool, right: bool) -> NDArray[np.bool_]:
    height, width = shape
    picture = np.zeros((height, width), np.uint8)
    scale = height / 224 * (0.9 if len(word) == 1 else 0.5)
    (text_width, text_height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    x = round(0.96 * width) - text_width if right else round(0.04 * width)
    y = round(0.96 * height) if bottom else round(0.04 * height) + text_height
    cv2.putText(picture, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 2)
    return np.asarray(picture > 0)


def peak_on(saliency_map: Map, ink: NDArray[np.bool_]) -> bool:
    """Return whether the map's strongest cell covers some of the ink; never, for an empty map."""
    if not saliency_map.any():
        return False
    peak = np.zeros(saliency_map.shape, dtype=np.uint8)
    peak.ravel()[int(saliency_map.argmax())] = 1
    cell = cv2.resize(peak, ink.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return bool((cell & ink).any())


def summarised(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and the 2.5 % and 97.5 % quantiles of values over films, nan left out."""
    known = np.array([value for value in values if not np.isnan(value)])
    if not len(known):
        return {"mean": None, "low": None, "high": None, "n": 0}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"mean": float(known.mean()), "low": float(low), "high": float(high), "n": len(known)}
