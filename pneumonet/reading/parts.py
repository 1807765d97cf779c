"""How many parts a raster file is made of, counted before a decoder opens it.

Pillow reads headers in Python, and a chunk, a marker or a block of a few bytes costs it as much as a large one; some it
inflates, and some it copies once more for each that follows. Each count goes the way that Pillow's reader goes.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

from pneumonet.errors import UnreadableImageError
from pneumonet.language import said
from pneumonet.reading.directories import EXIF_START, check_directory, check_exif
from pneumonet.reading.limits import MOST_PARTS, too_many_parts
from pneumonet.reading.tiff import first_directory

_CHUNK_NAME: Final = re.compile(rb"\w{4}")
_INFLATED_CHUNKS: Final = (b"iCCP", b"zTXt", b"iTXt")
_MOST_INFLATED_CHUNKS: Final = 32  # each may inflate to 1 MiB

# Markers that no length follows: a stuffed byte, TEM, restarts, start and end; and reserved ones as Pillow has them.
_BARE_MARKERS: Final = frozenset((0x00, 0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_EXIF_MARKER, _PICTURES_MARKER, _SCAN_MARKER, _END_MARKER = 0xE1, 0xE2, 0xDA, 0xD9
_FRAME_MARKERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NEXT_MARKER: Final = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
# Frame headers, quantization tables and Photoshop's resources, which Pillow makes objects of by the dozen.
_TAKEN_APART: Final = _FRAME_MARKERS | {0xDB, 0xED}
_MOST_BYTES_TAKEN_APART: Final = 1 << 20
_MOST_EXIF_SEGMENTS: Final = 200  # Pillow copies all that went before for each
# Each scan is a pass over the whole picture, be it of 60 bytes. Encoders make ten or so; a small picture may have more.
_USUAL_SCANS: Final = 16
_MOST_SCANS: Final = 64
_MOST_SCANNED_PIXELS: Final = 800_000_000

# Blocks of at most 255 bytes: all of a file's pixels, if each holds but a hundred.
_MOST_PIXEL_BLOCKS: Final = 100_000
_A_COMMENT_BLOCK: Final = 10  # parts: Pillow copies all that went before for each

# Pillow undoes run-length encoding in Python, and pads a row byte by byte.
_MOST_RUN_LENGTH_PIXELS: Final = 2_000_000
_MOST_RUN_LENGTH_BYTES: Final = 1_000_000
_WIDEST_RUN_LENGTH_ROW: Final = 32_767
_RUN_LENGTHS: Final = (1, 2)


def check_parts(data: bytes, name: str) -> None:
    """Refuse a raster file that is made of more parts than any film, or of parts that cost more than they seem to.

    Args:
        data: The whole file; damage is left for the decoder to find.
        name: The format, as `raster_format` names it. WebP's parts cost little: its reader is no Python.

    Raises:
        UnreadableImageError: If it is.
    """
    if name in _CHECKS:
        _CHECKS[name](data)


def _check_png(data: bytes) -> None:
    at, inflated = 8, 0
    for _ in range(MOST_PARTS):
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or not _CHUNK_NAME.fullmatch(kind):
            return
        inflated += kind in _INFLATED_CHUNKS
        if inflated > _MOST_INFLATED_CHUNKS:
            break
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    raise too_many_parts()


def _check_jpeg(data: bytes) -> None:
    pixels, taken_apart, exif = 0, 0, list[bytes]()
    for marker, start, end in _segments(data):
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5].ljust(4, b"\0"))
            pixels = max(pixels, width * height)
        elif marker == _EXIF_MARKER and data.startswith(EXIF_START, start):
            exif.append(data[start + len(EXIF_START) : end])
        elif marker == _PICTURES_MARKER and data.startswith(b"MPF\0", start):
            check_exif(data[start + 4 : end])  # of the same make
        taken_apart += (end - start) * (marker in _TAKEN_APART)
        if taken_apart > _MOST_BYTES_TAKEN_APART or len(exif) > _MOST_EXIF_SEGMENTS:
            raise too_many_parts()
        if marker == _SCAN_MARKER:
            check_exif(b"".join(exif))
            _check_scans(data, end, pixels)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment up to the first scan's header."""
    at = 2
    for _ in range(MOST_PARTS):
        if at + 4 > len(data):
            return
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # Pillow steps over these one by one
            at += 1
            continue
        start, at = at + 4, at + 2 + _length_after(marker, data, at)
        if marker not in _BARE_MARKERS:
            yield marker, start, at
        if marker == _SCAN_MARKER:
            return
    raise too_many_parts()


def _check_scans(data: bytes, at: int, pixels: int) -> None:
    scans = 1
    for _ in range(MOST_PARTS):
        found = _NEXT_MARKER.search(data, at)
        if found is None or data[found.start() + 1] == _END_MARKER:
            return
        at, marker = found.start(), data[found.start() + 1]
        scans += marker == _SCAN_MARKER
        if scans > _MOST_SCANS or (scans > _USUAL_SCANS and scans * pixels > _MOST_SCANNED_PIXELS):
            break
        at += 2 + _length_after(marker, data, at)
    raise too_many_parts()


def _length_after(marker: int, data: bytes, at: int) -> int:
    # A length counts its own two bytes, and a decoder that finds less goes on behind them.
    return 0 if marker in _BARE_MARKERS else max(2, int.from_bytes(data[at + 2 : at + 4], "big"))


def _check_gif(data: bytes) -> None:
    at, parts, pixel_blocks, frames = 13 + _palette_bytes(data[10:11]), 0, 0, 0
    while at < len(data) and data[at : at + 1] != b";":
        parts += 1
        kind = data[at : at + 1]
        if kind == b"!":
            at, cost = _behind_extension(data, at + 1, has_loop_count=frames == 0)
            parts += cost
        elif kind == b",":
            at, blocks = _behind_blocks(data, at + 11 + _palette_bytes(data[at + 9 : at + 10]))
            pixel_blocks, frames = pixel_blocks + blocks, frames + 1
        else:  # Pillow steps over these one by one
            at += 1
        if parts > MOST_PARTS or pixel_blocks > _MOST_PIXEL_BLOCKS:
            raise too_many_parts()


def _behind_extension(data: bytes, at: int, *, has_loop_count: bool) -> tuple[int, int]:
    """Return where Pillow goes on behind an extension, and what it costs in parts."""
    label = data[at : at + 1]
    if label == b"\xfe":
        at, blocks = _behind_blocks(data, at + 1)
        return at, blocks * _A_COMMENT_BLOCK
    # It takes one block, empty or not, and then all up to an empty one.
    at, block = _behind_block(data, at + 1), data[at + 2 : at + 13]
    if label == b"\xff" and has_loop_count and block == b"NETSCAPE2.0":
        at = _behind_block(data, at)
    return _behind_blocks(data, at)


def _behind_block(data: bytes, at: int) -> int:
    return at + 1 + (data[at] if at < len(data) else 0)


def _behind_blocks(data: bytes, at: int) -> tuple[int, int]:
    blocks = 0
    while at < len(data) and data[at]:
        at = _behind_block(data, at)
        blocks += 1
        if blocks > _MOST_PIXEL_BLOCKS:
            raise too_many_parts()
    return at + 1, blocks


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _check_bmp(data: bytes) -> None:
    if len(data) < 34 or data[14:18] == b"\x0c\0\0\0" or struct.unpack_from("<I", data, 30)[0] not in _RUN_LENGTHS:
        return
    width, height = struct.unpack_from("<ii", data, 18)
    if (
        width > _WIDEST_RUN_LENGTH_ROW
        or width * abs(height) > _MOST_RUN_LENGTH_PIXELS
        or len(data) > _MOST_RUN_LENGTH_BYTES
    ):
        raise UnreadableImageError(
            said("The bitmap is run-length encoded and too large to be read so."),
            hint=said("Save it without compression, or as a PNG."),
        )


def _check_tiff(data: bytes) -> None:
    offset, order, big = first_directory(data)
    check_directory(data, offset, order, big=big)


_CHECKS: Final[dict[str, Callable[[bytes], None]]] = {
    "PNG": _check_png,
    "JPEG": _check_jpeg,
    "TIFF": _check_tiff,
    "BMP": _check_bmp,
    "GIF": _check_gif,
}
