"""Whether a DICOM file's picture may be decompressed: by which decoder, and at what cost."""

from dataclasses import replace
from math import ceil
from typing import Any, Final

from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from pneumonet.errors import UnreadableImageError, UnsupportedTransferSyntaxError
from pneumonet.language import said
from pneumonet.reading.codestream import Declared, declared_jpeg, declared_jpeg_ls
from pneumonet.reading.jpeg_2000 import check_pieces, declared_jpeg_2000
from pneumonet.reading.limits import MOST_PARTS, ReadingLimits, check_pixels, too_many_parts, translated

_FRAGMENT: Final = b"\xfe\xff\x00\xe0"
_JPEG: Final = (JPEGBaseline8Bit, JPEGExtended12Bit)


def decoder_for(syntax: UID) -> str:
    """Return pydicom's name of the decoder to use; "" where the pixels are not encapsulated.

    One that fails would hand over to the next, which takes a codestream for something else than was checked. And
    pydicom's own RLE decoder is plain Python and tens of times slower.
    """
    if not syntax.is_encapsulated:
        return ""
    if syntax in _JPEG:
        return "pillow"
    return "pyjpegls" if syntax in JPEGLSTransferSyntaxes else "pylibjpeg"


def check_compression(dataset: Any, index: int, frames: int, limits: ReadingLimits) -> int:
    """Refuse a frame that no decoder undoes, or that would cost one more than the tags say.

    Returns:
        The pixels that the compressed picture declares; 0 where it is not compressed.

    Raises:
        UnsupportedTransferSyntaxError: If no shipped decoder can undo its compression.
        TooManyPixelsError: If the compressed picture declares too many pixels.
        UnreadableImageError: If it is damaged, declares other channels than the tags, or has too many parts.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    # Pillow's JPEG has 8 bits only, and the decoders for 12 are under the GPL.
    if not _has_decoder(syntax) or (syntax == JPEGExtended12Bit and dataset.BitsStored != 8):
        raise UnsupportedTransferSyntaxError(
            said("The DICOM file is compressed as {syntax}, which is not read.", syntax=_in_words(syntax))
        )
    if not syntax.is_encapsulated:
        return 0
    if dataset.PixelData.count(_FRAGMENT) > MOST_PARTS:
        raise too_many_parts()
    with translated(damaged(syntax)):
        return _checked_codestream(dataset, syntax, index, frames, limits)


def _checked_codestream(dataset: Any, syntax: UID, index: int, frames: int, limits: ReadingLimits) -> int:
    offsets = as_pixel_options(dataset).get("extended_offsets")
    codestream = get_frame(dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets)
    declared = _declared(dataset, syntax, codestream)
    check_pixels(declared.width, declared.height, limits)
    # The decoders of JPEG-LS and JPEG 2000 make room for up to 255 and 16,384 channels.
    if declared.components not in (1, 3) or declared.components != dataset.SamplesPerPixel:
        raise UnreadableImageError(
            said(
                "The DICOM file's compressed picture has {found:,} colour channels; its tags say {stated:,}.",
                found=declared.components,
                stated=int(dataset.SamplesPerPixel),
            )
        )
    # pydicom makes room for as many bits as the tags say: colours of more than 16 may have so many fewer pixels.
    if declared.components == 3 and dataset.BitsAllocated > 16:
        fewer = limits.max_pixels * 16 // dataset.BitsAllocated
        check_pixels(declared.width, declared.height, replace(limits, max_pixels=fewer))
    if syntax in JPEG2000TransferSyntaxes:
        check_pieces(codestream, declared)
    return declared.width * declared.height


def _declared(dataset: Any, syntax: UID, codestream: bytes) -> Declared:
    if syntax == RLELossless:
        # A segment for each byte of each channel (PS3.5 G.2); the size is the tags' own.
        segments = int.from_bytes(codestream[:4], "little")
        return Declared(dataset.Columns, dataset.Rows, segments // ceil(dataset.BitsAllocated / 8))
    if syntax in _JPEG:
        return declared_jpeg(codestream)
    return declared_jpeg_ls(codestream) if syntax in JPEGLSTransferSyntaxes else declared_jpeg_2000(codestream)


def _has_decoder(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def damaged(syntax: UID) -> str:
    """Say that a frame's pixels are at fault."""
    return said("The DICOM file's picture ({syntax}) is damaged or incomplete.", syntax=_in_words(syntax))


def _in_words(syntax: UID) -> str:
    # A damaged or made-up UID may hold any text, so only well-formed ones are repeated.
    if not syntax.is_valid:
        return said("an unknown transfer syntax")
    if syntax.name == syntax:
        return said("an unknown transfer syntax ({uid})", uid=str(syntax))
    return f"{syntax.name} ({syntax})"
