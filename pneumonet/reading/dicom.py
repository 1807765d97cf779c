"""DICOM through pydicom: a file's frame as tones, and what its tags say of it."""

import logging
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import convert_color_space, get_decoder
from pydicom.pixels.utils import as_pixel_options

from pneumonet.errors import UnreadableImageError
from pneumonet.language import said
from pneumonet.radiograph import Radiograph
from pneumonet.reading.decoding import DECODING
from pneumonet.reading.dicom_compression import check_compression, damaged, decoder_for
from pneumonet.reading.dicom_file import is_dicom, read_file, read_header
from pneumonet.reading.dicom_palette import grey_of_palette
from pneumonet.reading.dicom_tags import age_in_years, text_of, whole_number_of
from pneumonet.reading.dicom_tones import grey_of_stored
from pneumonet.reading.limits import ReadingLimits, check_pixels, pick_frame, translated
from pneumonet.reading.tones import Block, Pixels, grey_of_channels

__all__ = ["is_dicom", "read_dicom", "read_header"]

# pydicom logs its warnings and every decoder's failure, with the values of tags in the text.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_PIXEL_KEYWORDS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read_dicom(data: bytes, frame: int | None, limits: ReadingLimits) -> Radiograph:
    """Decode one frame of a DICOM file.

    Args:
        data: The whole file.
        frame: Which frame, from 0; None for the first.
        limits: The limits to hold, before anything is decoded.

    Raises:
        TooManyPixelsError: If the tags or the compressed picture declare too many pixels.
        FrameNotFoundError: If the file does not have the frame.
        UnsupportedTransferSyntaxError: If no shipped decoder can undo its compression.
        UnreadableImageError: If it holds no pixels, or they cannot be decoded.
        TookTooLongError: If its turn at decoding did not come in time.
    """
    with ExitStack() as turns:
        return _radiograph(read_file(data, limits, turns), frame, limits)


def _radiograph(dataset: Any, frame: int | None, limits: ReadingLimits) -> Radiograph:
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        raise UnreadableImageError(said("The DICOM file holds no picture, or was cut short before it."))
    _fill_gaps(dataset)
    check_pixels(dataset.Columns, dataset.Rows, limits)
    frames = dataset.NumberOfFrames = max(1, whole_number_of(dataset, "NumberOfFrames") or 1)
    index, warnings = pick_frame(frame, frames)
    compressed = check_compression(dataset, index, frames, limits)
    with DECODING.turn(max(compressed, dataset.Columns * dataset.Rows), limits):
        pixels, colourfulness, told = _grey(dataset, *_decode(dataset, index))
    return Radiograph(
        pixels=np.ascontiguousarray(pixels),
        format="DICOM",
        colourfulness=colourfulness,
        frame=index,
        frames=frames,
        modality=text_of(dataset, "Modality"),
        body_part=text_of(dataset, "BodyPartExamined"),
        view_position=text_of(dataset, "ViewPosition"),
        patient_age_years=age_in_years(dataset),
        warnings=warnings + told + _burned_in(dataset),
    )


def _burned_in(dataset: Any) -> tuple[str, ...]:
    if (text_of(dataset, "BurnedInAnnotation") or "").strip().upper() != "YES":
        return ()
    return (
        said("The file says that text is burned into the picture: it may name a patient, and it may sway the answer."),
    )


def _fill_gaps(dataset: Any) -> None:
    """Put in what careless writers leave out and what has one sensible value."""
    samples = dataset.setdefault("SamplesPerPixel", 1).value
    dataset.setdefault("PhotometricInterpretation", "RGB" if samples == 3 else "MONOCHROME2")
    if "PixelData" in dataset:
        dataset.setdefault("BitsStored", dataset.BitsAllocated)
        dataset.setdefault("PixelRepresentation", 0)
    if samples > 1:
        dataset.setdefault("PlanarConfiguration", 0)


def _decode(dataset: Any, index: int) -> tuple[NDArray[Any], str, int]:
    """Return the frame as stored, (H, W) or (H, W, channels), with its photometric interpretation and bits stored."""
    syntax = dataset.file_meta.TransferSyntaxUID
    with translated(damaged(syntax)):
        stored, properties = get_decoder(syntax).as_array(
            dataset,
            index=index,
            # pydicom would turn YBR into RGB in float32, all of it at once; and copy what it need not decode.
            raw=True,
            view_only=True,
            decoding_plugin=decoder_for(syntax),
            **as_pixel_options(dataset),
        )
    return stored, str(properties["photometric_interpretation"]), int(properties.get("bits_stored", 0))


def _grey(dataset: Any, stored: NDArray[Any], photometric: str, bits: int) -> tuple[Pixels, float, tuple[str, ...]]:
    if photometric == "PALETTE COLOR":
        return *grey_of_palette(stored, dataset), ()
    if stored.ndim == 3:
        return *grey_of_channels(stored.shape[:2], partial(_rgb, stored, photometric), 2**bits - 1), ()
    pixels, warnings = grey_of_stored(stored, dataset, inverted=photometric == "MONOCHROME1")
    return pixels, 0.0, warnings


def _rgb(stored: NDArray[Any], photometric: str, block: Block) -> NDArray[Any]:
    channels = stored[block]
    if photometric in ("YBR_FULL", "YBR_FULL_422") or photometric.startswith("YBR_PARTIAL"):
        channels = convert_color_space(channels, "YBR_FULL", "RGB")
    return channels[..., :3]
