"""What a compressed picture inside a DICOM file declares of itself.

A decoder makes room for what the codestream says, whatever the DICOM tags say.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

import _CharLS  # type: ignore[import-not-found]
from PIL.JpegImagePlugin import JpegImageFile

from pneumonet.reading.limits import MOST_PARTS, too_many_parts
from pneumonet.reading.parts import check_parts

# SOF0 to SOF15 without DHT, JPG and DAC, which share the range; and SOF55, JPEG-LS's.
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}


@dataclass(frozen=True)
class Declared:
    """A codestream's width, height and components, 3 of which are colour."""

    width: int
    height: int
    components: int


def declared_jpeg(codestream: bytes) -> Declared:
    """Read the header as Pillow does, which decodes it: what stands between two markers it steps over.

    Raises:
        UnreadableImageError: If the codestream is made of too many parts.
        SyntaxError: If it is no JPEG.
    """
    _check_steps(codestream)
    check_parts(codestream, "JPEG")
    picture = JpegImageFile(BytesIO(codestream))
    with picture:
        return Declared(*picture.size, picture.layers)


def declared_jpeg_ls(codestream: bytes) -> Declared:
    """Read the header as CharLS does, which decodes it and takes a size from several segments.

    Raises:
        UnreadableImageError: If the codestream is made of too many parts.
        RuntimeError: If it is no JPEG-LS.
    """
    _check_steps(codestream)
    header = _CharLS.read_header(codestream)
    return Declared(header["width"], header["height"], header["components"])


def _check_steps(codestream: bytes) -> None:
    """Go the way to the frame header that pydicom goes, which takes whatever it finds for a segment with a length."""
    at = 2
    for _ in range(MOST_PARTS):
        if at + 4 > len(codestream) or (codestream[at] == 0xFF and codestream[at + 1] in _FRAME_MARKERS):
            return
        at += 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
    raise too_many_parts()
