"""Reading: a film as bytes or a path -> Radiograph; the content tells the kind, never the name."""

import os
from pathlib import Path

import numpy as np

from pneumonet.errors import (
    BadRequestError,
    EmptyFileError,
    FileTooLargeError,
    NoFileError,
    UnreadableImageError,
    UnsupportedFormatError,
)
from pneumonet.language import said
from pneumonet.radiograph import Radiograph
from pneumonet.reading.dicom import is_dicom, read_dicom
from pneumonet.reading.dicom_directory import is_dicom_directory, pictures_of
from pneumonet.reading.limits import ReadingLimits, in_megabytes, translated
from pneumonet.reading.raster import raster_format, read_raster
from pneumonet.reading.tones import NOT_NUMBERS

__all__ = ["ReadingLimits", "is_dicom_directory", "pictures_of", "read_bytes", "read_radiograph"]

_DEFAULT_LIMITS = ReadingLimits()


def read_radiograph(
    source: bytes | str | Path, *, frame: int | None = None, limits: ReadingLimits = _DEFAULT_LIMITS
) -> Radiograph:
    """Decode one film.

    Args:
        source: The file's bytes, or the path of a file.
        frame: Which frame or page to read, from 0; None reads the first and says so where there are several.
        limits: How large a film may be, and how many pixels are decoded at once in the whole process.

    Returns:
        The film: (H, W) float32 in [0, 1], black = air, as an upright viewer shows it.

    Raises:
        BadRequestError: If `source` or `frame` is of another type.
        NoFileError: If `source` is None or an empty path.
        EmptyFileError: If the file has no bytes.
        FileTooLargeError: If it has more bytes than the limit.
        TooManyPixelsError: If its header declares more pixels than the limit; nothing was decoded.
        UnsupportedFormatError: If the bytes are of no format that is read.
        UnsupportedTransferSyntaxError: If a DICOM file is compressed as no shipped decoder can undo.
        FrameNotFoundError: If the file does not have the frame asked for.
        UnreadableImageError: If the file cannot be opened, is damaged, is cut short, or holds no pixels.
        TookTooLongError: If its turn at decoding did not come in time.
    """
    _check_frame(frame)
    data = read_bytes(source, limits)
    if not data:
        raise EmptyFileError(said("The file is empty."))
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    with translated(said("The file is damaged or incomplete, so its picture could not be read.")):
        radiograph = _read(data, frame, limits)
    if not np.isfinite(radiograph.pixels).all():
        raise UnreadableImageError(NOT_NUMBERS)
    return radiograph


def _read(data: bytes, frame: int | None, limits: ReadingLimits) -> Radiograph:
    # DICOM first: a dual-personality file carries a TIFF header in its preamble.
    if is_dicom(data):
        return read_dicom(data, frame, limits)
    if raster_format(data) is not None:
        return read_raster(data, frame, limits)
    raise UnsupportedFormatError(said("The file is not a picture that PneumoNet reads."))


def _check_frame(frame: object) -> None:
    # True is an int to Python, but nobody means frame 1 by it.
    if frame is not None and (isinstance(frame, bool) or not isinstance(frame, int)):
        raise BadRequestError(
            f"The frame is of type {type(frame).__name__}; an int or None is expected.", hint="Frames count from 0."
        )


def read_bytes(source: object, limits: ReadingLimits = _DEFAULT_LIMITS) -> bytes:
    """Return a film's bytes as they are, undecoded; a file over the limit is not read.

    Raises:
        BadRequestError: If `source` is of another type than `read_radiograph` takes.
        NoFileError: If `source` is None or an empty path.
        FileTooLargeError: If a file has more bytes than the limit.
        UnreadableImageError: If a file cannot be opened.
    """
    if source is None or (isinstance(source, str) and not source):
        raise NoFileError(said("No file was sent."))
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not isinstance(source, (str, os.PathLike)):
        raise BadRequestError(
            f"The film is of type {type(source).__name__}; bytes, a str or a Path is expected.",
            hint="Give the file's bytes, or the path of the file.",
        )
    # The message leaves the path out: a film's name often holds the patient's.
    with translated(said("The file could not be opened: it does not exist, or it is not a readable file.")):
        return _load(Path(source), limits)


def _load(path: Path, limits: ReadingLimits) -> bytes:
    if not path.is_file():
        raise UnreadableImageError("The file does not exist, or it is not a file.", hint="Check the path.")
    if path.stat().st_size > limits.max_bytes:
        raise _too_large(limits)
    with path.open("rb") as file:
        return file.read(limits.max_bytes + 1)


def _too_large(limits: ReadingLimits) -> FileTooLargeError:
    return FileTooLargeError(
        said("The file is larger than the limit of {limit}.", limit=in_megabytes(limits.max_bytes))
    )
