"""JPEG 2000 inside a DICOM file: what it declares, and how finely it is cut (ISO/IEC 15444-1, Annexes A, B and I)."""

import struct
from collections.abc import Iterator
from math import ceil
from typing import Final

from pneumonet.reading.codestream import Declared
from pneumonet.reading.limits import MOST_PARTS, too_many_parts

_START_AND_SIZE: Final = b"\xff\x4f\xff\x51"
_JP2_START: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_COD, _COC, _TILE_PART, _DATA, _END = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
# Those that OpenJPEG skips by their lengths. Behind others it looks for the next one that it knows, wherever that is.
_OTHER_SEGMENTS: Final = frozenset(
    (0xFF50, 0xFF51, 0xFF55, 0xFF57, 0xFF58, 0xFF59, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F, 0xFF60, 0xFF61, 0xFF63, 0xFF64,
     0xFF74, 0xFF75, 0xFF77, 0xFF78)
)  # fmt: skip
_MOST_LEVELS: Final = 32
# OpenJPEG keeps some 500 bytes for a precinct or a code-block, and visits each precinct once for every layer. Three
# channels of 40 million pixels in blocks of 32 x 32 make 160,000.
_MOST_PIECES: Final = 500_000


def declared_jpeg_2000(codestream: bytes) -> Declared:
    """Read the size that a codestream, bare or in JP2's boxes, starts with.

    Raises:
        ValueError: If it starts otherwise, or JP2's boxes hold a palette, which makes channels of its own.
        struct.error: If it is cut short.
    """
    at = _start(codestream)
    right, bottom, left, top = struct.unpack_from(">4I", codestream, at + 8)
    return Declared(right - left, bottom - top, struct.unpack_from(">H", codestream, at + 40)[0])


def check_pieces(codestream: bytes, declared: Declared) -> None:
    """Refuse a picture in more tiles, precincts, code-blocks and layers than it could need.

    Args:
        codestream: As for `declared_jpeg_2000`.
        declared: What that returned.

    Raises:
        UnreadableImageError: If there are too many.
        ValueError: If its headers are damaged.
        struct.error: If one is cut short.
    """
    at = _start(codestream)
    right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", codestream, at + 8)
    if not width or not height:
        raise ValueError("tiles without pixels")
    tiles = ceil((right - left) / width) * ceil((bottom - top) / height)
    width, height = min(width, declared.width), min(height, declared.height)
    layers, most = 1, 0
    for marker, style in _coding_styles(codestream, at):
        if marker == _COD:
            layers = max(layers, int.from_bytes(style[2:4], "big"))
            has_precincts, parameters = style[0] & 1, style[5:]
        else:
            has_precincts, parameters = style[1] & 1, style[2:]
        precincts, blocks = _pieces(parameters, bool(has_precincts), width, height)
        most = max(most, precincts * layers + blocks)
    if tiles > MOST_PARTS or tiles * most * declared.components > _MOST_PIECES:
        raise too_many_parts()


def _start(codestream: bytes) -> int:
    """Return where the codestream proper starts."""
    at = 0
    if codestream.startswith(_JP2_START):
        length, kind = 12, b""
        while kind != b"jp2c":
            at += length
            length, kind = struct.unpack_from(">I4s", codestream, at)
            # pydicom goes round for ever over a box of no length.
            if length < 8 and kind != b"jp2c":
                raise ValueError("a box of no length")
        if b"pclr" in codestream[:at]:
            raise ValueError("a palette")
        at += 8
    if not codestream.startswith(_START_AND_SIZE, at):
        raise ValueError("no codestream")
    return at


def _coding_styles(codestream: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield the coding styles, COD and COC, of the main header and of each tile-part's, without their lengths."""
    at += 2
    tile_part = tile_part_bytes = 0
    for _ in range(MOST_PARTS):
        if at + 4 > len(codestream):
            return
        marker, length = struct.unpack_from(">HH", codestream, at)
        if marker == _END or (marker == _DATA and not tile_part_bytes):
            return
        if marker == _DATA:
            if tile_part + tile_part_bytes <= at:
                raise ValueError("a tile-part shorter than its header")
            at = tile_part + tile_part_bytes
            continue
        if marker == _TILE_PART:
            tile_part, tile_part_bytes = at, struct.unpack_from(">I", codestream, at + 6)[0]
        elif marker in (_COD, _COC):
            yield marker, codestream[at + 4 : at + 2 + length]
        elif marker not in _OTHER_SEGMENTS:
            raise ValueError("an unknown marker")
        at += 2 + max(2, length)
    raise too_many_parts()


def _pieces(parameters: bytes, has_precincts: bool, width: int, height: int) -> tuple[int, int]:
    """Return how many precincts and code-blocks a tile of that size has, by Table A.15."""
    levels = min(parameters[0], _MOST_LEVELS)
    block_width, block_height = parameters[1] % 16 + 2, parameters[2] % 16 + 2
    precincts = blocks = 0
    for level in range(levels + 1):
        size = parameters[5 + level] if has_precincts else 0xFF
        across, down = ceil(width / 2 ** (levels - level)), ceil(height / 2 ** (levels - level))
        precincts += _cells(across, down, size % 16, size // 16)
        # A band is half as large as what it is a band of, and so is its share of a precinct.
        halved = min(level, 1)
        blocks += _cells(across, down, min(block_width, size % 16 - halved), min(block_height, size // 16 - halved))
    return precincts, blocks


def _cells(across: int, down: int, width_exponent: int, height_exponent: int) -> int:
    return int(-(-across // 2 ** max(0, width_exponent)) * -(-down // 2 ** max(0, height_exponent)))
