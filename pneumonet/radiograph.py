"""Radiograph: a film as the model sees it, and where it came from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One film, decoded.

    Attributes:
        pixels: (H, W) float32 in [0, 1], black = air, as an upright viewer shows it.
        format: The file's format: "JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF" or "DICOM".
        colourfulness: Mean over pixels of the largest less the smallest channel, in [0, 1]; 0 for a grey picture.
        frame: Index of the frame read, from 0.
        frames: How many frames the file has.
        modality: DICOM Modality (0008,0060), None where not stated.
        body_part: DICOM Body Part Examined (0018,0015), None where not stated.
        view_position: DICOM View Position (0018,5101), None where not stated.
        patient_age_years: DICOM Patient's Age (0010,1010), or the years from birth date to study date; None where
            not stated. Used for a warning only, never logged.
        warnings: Sentences that the user should read, such as which of several frames was used.
    """

    pixels: NDArray[np.float32]
    format: str
    colourfulness: float = 0.0
    frame: int = 0
    frames: int = 1
    modality: str | None = None
    body_part: str | None = None
    view_position: str | None = None
    patient_age_years: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])
