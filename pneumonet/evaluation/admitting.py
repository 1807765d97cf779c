"""Whom admission lets pass and what it refuses, measured on real films and on strangers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pneumonet.errors import AdmissionError, InputError
from pneumonet.evaluation.strangers import Picture, drawn, photographs, spoilt
from pneumonet.model import PneumoNet
from pneumonet.radiograph import Radiograph
from pneumonet.reading import read_radiograph

# What a DICOM header can say against a frontal chest film, laid on films that would pass without it.
_HEADERS: Final = {
    "DICOM tagged LATERAL": {"modality": "DX", "body_part": "CHEST", "view_position": "LATERAL"},
    "DICOM tagged HAND": {"modality": "DX", "body_part": "HAND"},
    "DICOM tagged CT": {"modality": "CT", "body_part": "CHEST"},
}


def verdict(model: PneumoNet, film: Radiograph) -> tuple[str, ...]:
    """Return the codes of admission's reasons against a film; none where it is admitted."""
    try:
        model.predict(film, saliency=False)
    except AdmissionError as error:
        return tuple(reason.code for reason in error.reasons)
    return ()


def passing(model: PneumoNet, films: Iterable[Path]) -> dict[str, Any]:
    """Return how many real films are admitted: `n`, `admitted`, `share`, `reasons` of the others."""
    return _counted(verdict(model, read_radiograph(film, limits=model.limits)) for film in films)


def refusals(model: PneumoNet, strangers: Iterable[tuple[str, Radiograph]]) -> dict[str, dict[str, Any]]:
    """Return, for each kind of stranger, `n`, `admitted`, `share` admitted and the `reasons` of the others."""
    verdicts: dict[str, list[tuple[str, ...]]] = {}
    for kind, film in strangers:
        verdicts.setdefault(kind, []).append(verdict(model, film))
    return {kind: _counted(of_kind) for kind, of_kind in verdicts.items()}


def strangers(
    model: PneumoNet, films: Sequence[Path], folders: Sequence[Path], *, count: int, seed: int
) -> Iterator[tuple[str, Radiograph]]:
    """Yield pictures that should be refused, each with its kind, read by the road that a user's file takes.

    Args:
        model: For its limits on reading.
        films: Real films, to be spoilt.
        folders: Folders of pictures of other things; the folder's name is their kind.
        count: Pictures of each kind that is drawn.
        seed: Seed of every draw.
    """
    grey = [np.asarray(cv2.imread(str(film), cv2.IMREAD_GRAYSCALE), dtype=np.uint8) for film in films]
    for kind, picture in (*drawn(count, seed), *photographs(count // 6, seed), *spoilt(grey, seed)):
        yield kind, _read(model, picture)
    for folder in folders:
        for path in sorted(folder.iterdir()):
            try:
                yield folder.name.replace("_", " "), read_radiograph(path, limits=model.limits)
            except InputError:
                continue  # a README beside the pictures
    for kind, header in _HEADERS.items():
        for film in films:
            yield kind, replace(read_radiograph(film), **header)  # type: ignore[arg-type]


def _read(model: PneumoNet, picture: Picture) -> Radiograph:
    stored = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    return read_radiograph(cv2.imencode(".png", stored)[1].tobytes(), limits=model.limits)


def _counted(verdicts: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    every = list(verdicts)
    admitted = sum(not codes for codes in every)
    reasons = Counter(codes[0] for codes in every if codes)
    return {
        "n": len(every),
        "admitted": admitted,
        "share": round(admitted / len(every), 6) if every else None,
        "reasons": dict(sorted(reasons.items())),
    }
