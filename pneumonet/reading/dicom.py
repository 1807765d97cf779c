"""DICOM through pydicom: what the file is, whether it may be decoded, and its pixels as stored."""

import logging
import zlib
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import read_dataset, read_preamble
from pydicom.pixels import apply_color_lut, convert_color_space, get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    RLELossless,
)

from pneumonet.errors import TooManyPixelsError, UnreadableImageError, UnsupportedTransferSyntaxError
from pneumonet.radiograph import Radiograph
from pneumonet.reading.codestream import declared_size
from pneumonet.reading.dicom_tags import age_in_years, text_of, whole_number_of
from pneumonet.reading.dicom_tones import grey_of_stored
from pneumonet.reading.limits import ReadingLimits, check_pixels, pick_frame, translated
from pneumonet.reading.tones import Pixels, grey_of_channels

# pydicom logs its warnings and every decoder's failure, with the values of tags in the text.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)

_PIXEL_KEYWORDS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NAMING_KEYWORDS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "Rows")
_FIRST_GROUPS: Final = (b"\x02\0", b"\x08\0", b"\0\x08")
# What a pixel may take up once inflated: 32 bits, or three channels of 8 and some room.
_MAX_BYTES_A_PIXEL: Final = 4


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, with its preamble or without.

    pydicom's forced reading makes a data set of any bytes, a letter included, so a file without the preamble has to
    start with a group that DICOM files start with and to hold an element that names what it is.
    """
    if data[128:132] == b"DICM":
        return True
    if data[:4] != b"DICM" and data[:2] not in _FIRST_GROUPS:
        return False
    try:
        head = dcmread(BytesIO(_without_bare_magic(data)), force=True, stop_before_pixels=True)
        return any(keyword in head for keyword in _NAMING_KEYWORDS)
    except Exception:  # no parser's error says more than that this is no DICOM
        return False


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
    """
    dataset = _parse(data, limits)
    if not any(keyword in dataset for keyword in _PIXEL_KEYWORDS):
        raise UnreadableImageError("The DICOM file holds no picture, or was cut short before it.")
    _fill_gaps(dataset)
    check_pixels(dataset.Columns, dataset.Rows, limits)
    frames = dataset.NumberOfFrames = max(1, whole_number_of(dataset, "NumberOfFrames") or 1)
    index, warnings = pick_frame(frame, frames)
    _check_compression(dataset, index, frames, limits)
    stored, photometric, bits = _decode(dataset, index)
    pixels, colourfulness, told = _grey(dataset, stored, photometric, bits)
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


def read_header(data: bytes) -> Any | None:
    """Return a DICOM file's tags up to its pixels; None where the bytes are no DICOM file.

    Args:
        data: A file that `read_dicom` has read, so that it is known to inflate to no more than a film may.
    """
    if not is_dicom(data):
        return None
    return dcmread(BytesIO(_without_bare_magic(data)), force=True, stop_before_pixels=True)


def _burned_in(dataset: Any) -> tuple[str, ...]:
    if (text_of(dataset, "BurnedInAnnotation") or "").strip().upper() != "YES":
        return ()
    return ("The file says that text is burned into the picture: it may name a patient, and it may sway the answer.",)


def _without_bare_magic(data: bytes) -> bytes:
    """Drop a "DICM" that stands at the start, where a writer left out the 128 bytes before it."""
    return data[4:] if data[:4] == b"DICM" else data


def _parse(data: bytes, limits: ReadingLimits) -> Any:
    data = _without_bare_magic(data)
    _check_deflated(data, limits)
    dataset = dcmread(BytesIO(data), force=True)
    if not getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID"):
        # pydicom has told implicit from explicit and the byte order by the first element.
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def _check_deflated(data: bytes, limits: ReadingLimits) -> None:
    """Refuse a deflated data set that would inflate to more than any film within the limit."""
    file = BytesIO(data)
    read_preamble(file, force=True)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    room = limits.max_pixels * _MAX_BYTES_A_PIXEL + limits.max_bytes
    inflate, rest = zlib.decompressobj(-zlib.MAX_WBITS), file.read()
    while rest and not inflate.eof:
        room -= len(inflate.decompress(rest, 1 << 20))
        if room < 0:
            raise TooManyPixelsError("The DICOM file inflates to more than a film within the limit can take.")
        rest = inflate.unconsumed_tail


def _fill_gaps(dataset: Any) -> None:
    """Put in what careless writers leave out and what has one sensible value."""
    samples = dataset.setdefault("SamplesPerPixel", 1).value
    dataset.setdefault("PhotometricInterpretation", "RGB" if samples == 3 else "MONOCHROME2")
    if "PixelData" in dataset:
        dataset.setdefault("BitsStored", dataset.BitsAllocated)
        dataset.setdefault("PixelRepresentation", 0)
    if samples > 1:
        dataset.setdefault("PlanarConfiguration", 0)


def _check_compression(dataset: Any, index: int, frames: int, limits: ReadingLimits) -> None:
    syntax = dataset.file_meta.TransferSyntaxUID
    # Pillow's JPEG has 8 bits only, and the decoders for 12 are under the GPL.
    if not _has_decoder(syntax) or (syntax == JPEGExtended12Bit and dataset.BitsStored != 8):
        raise UnsupportedTransferSyntaxError(f"The DICOM file is compressed as {_in_words(syntax)}, which is not read.")
    if not syntax.is_encapsulated:
        return
    offsets = as_pixel_options(dataset).get("extended_offsets")
    codestream = get_frame(dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    size = declared_size(codestream)
    if size is not None:
        check_pixels(*size, limits)


def _has_decoder(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _in_words(syntax: UID) -> str:
    # A damaged or made-up UID may hold any text, so only well-formed ones are repeated.
    if not syntax.is_valid:
        return "an unknown transfer syntax"
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else f"an unknown transfer syntax ({syntax})"


def _decode(dataset: Any, index: int) -> tuple[NDArray[Any], str, int]:
    """Return the frame as stored, (H, W) or (H, W, channels), with its photometric interpretation and bits stored."""
    syntax = dataset.file_meta.TransferSyntaxUID
    # pydicom's own RLE decoder is plain Python and tens of times slower.
    plugin = "pylibjpeg" if syntax == RLELossless else ""
    message = f"The DICOM file's picture ({_in_words(syntax)}) is damaged or incomplete."
    with translated(message):
        stored, properties = get_decoder(syntax).as_array(
            dataset, index=index, decoding_plugin=plugin, **as_pixel_options(dataset)
        )
    return stored, str(properties["photometric_interpretation"]), int(properties.get("bits_stored", 0))


def _grey(dataset: Any, stored: NDArray[Any], photometric: str, bits: int) -> tuple[Pixels, float, tuple[str, ...]]:
    if photometric == "PALETTE COLOR":
        channels = apply_color_lut(stored, dataset)[..., :3]
        # Some writers keep 8-bit colours in 16-bit entries.
        top = 0xFF if channels.max() <= 0xFF else 0xFFFF
        return *grey_of_channels(channels, top), ()
    if stored.ndim == 3:
        if photometric.startswith("YBR_PARTIAL"):
            stored = convert_color_space(stored, "YBR_FULL", "RGB")
        return *grey_of_channels(stored[..., :3], 2**bits - 1), ()
    pixels, warnings = grey_of_stored(stored, dataset, inverted=photometric == "MONOCHROME1")
    return pixels, 0.0, warnings
