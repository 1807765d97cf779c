"""The size that a compressed picture inside a DICOM file declares of itself."""

import struct
from typing import Final

_J2K_START_AND_SIZE: Final = b"\xff\x4f\xff\x51"
_JPEG_START: Final = b"\xff\xd8"
# SOF0 to SOF15 without DHT, JPG and DAC, which share the range; and SOF55, JPEG-LS's.
_JPEG_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_SCAN_MARKERS: Final = (0xD9, 0xDA)


def declared_size(codestream: bytes) -> tuple[int, int] | None:
    """Return the largest (width, height) that a JPEG, JPEG-LS or JPEG 2000 codestream declares.

    A decoder makes room for what the codestream says, whatever the DICOM tags say.

    Returns:
        None where the bytes are no such codestream, as in RLE.
    """
    sizes = _jpeg_sizes(codestream) if codestream.startswith(_JPEG_START) else _j2k_sizes(codestream)
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _jpeg_sizes(codestream: bytes) -> list[tuple[int, int]]:
    sizes, at = [], 2
    while at + 9 <= len(codestream) and codestream[at] == 0xFF:
        marker = codestream[at + 1]
        if marker in _JPEG_SCAN_MARKERS:
            break
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _JPEG_FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", codestream, at + 5)
            sizes.append((width, height))
        at += 2 + int(struct.unpack_from(">H", codestream, at + 2)[0])
    return sizes


def _j2k_sizes(codestream: bytes) -> list[tuple[int, int]]:
    # The marker may come after boxes of JP2. It cannot occur inside packed data, so a second one is a decoy at most.
    sizes, at = [], codestream.find(_J2K_START_AND_SIZE)
    while at >= 0 and at + 24 <= len(codestream):
        right, bottom, left, top = struct.unpack_from(">4I", codestream, at + 8)
        sizes.append((right - left, bottom - top))
        at = codestream.find(_J2K_START_AND_SIZE, at + 4)
    return sizes
