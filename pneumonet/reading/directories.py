"""TIFF's directories, of which EXIF is made too: what loading one would cost.

A directory's entries may all point at the same bytes, and Pillow makes a copy for each of them.
"""

import struct
from typing import Final

from pneumonet.reading.limits import MOST_PARTS, too_many_parts

# Type -> bytes a value, and what a value costs once it is asked for: text and bytes nothing, a fraction 20 numbers.
_TYPES: Final = {1: (1, 0), 2: (1, 0), 3: (2, 1), 4: (4, 1), 5: (8, 20), 6: (1, 1), 7: (1, 0), 8: (2, 1), 9: (4, 1),
                 10: (8, 20), 11: (4, 1), 12: (8, 1), 13: (4, 1), 16: (8, 1)}  # fmt: skip
_OFFSET_TYPES: Final = (3, 4, 8, 9, 13, 16)
# EXIF, GPS and interoperability: Pillow loads those directories beside a page's own.
_POINTERS: Final = (0x8769, 0x8825, 0xA005)
_MOST_DIRECTORIES: Final = 8
# Strip or tile offsets. One strip a row up to the pixel limit is well within it.
_PIECES: Final = (273, 324)
_MOST_PIECES: Final = 1 << 16
# Offsets and byte counts of that many pieces, and a 16-bit transfer function of three channels.
_MOST_NUMBERS: Final = 2 * _MOST_PIECES + 3 * 2**16
EXIF_START: Final = b"Exif\0\0"
_MOST_STARTS: Final = 8


def check_exif(blob: bytes) -> None:
    """Refuse EXIF whose directory no program has written; nonsense passes, as nothing comes of it.

    Raises:
        UnreadableImageError: If loading it would cost too much.
    """
    # Pillow copies all that is left for each that it takes away.
    if blob.startswith(EXIF_START * _MOST_STARTS):
        raise too_many_parts()
    while blob.startswith(EXIF_START):
        blob = blob[len(EXIF_START) :]
    if len(blob) >= 8 and blob[:2] in (b"II", b"MM"):
        order = "<" if blob[:2] == b"II" else ">"
        check_directory(blob, int(struct.unpack_from(order + "I", blob, 4)[0]), order)


def check_directory(data: bytes, offset: int, order: str, *, big: bool = False) -> None:
    """Refuse a directory, or one that it points at, of too many entries or values, or whose values lie over each other.

    Args:
        data: The whole file or EXIF block.
        offset: Where the directory starts.
        order: "<" or ">".
        big: Whether it is BigTIFF's.

    Raises:
        UnreadableImageError: If loading it would cost too much.
    """
    offsets = [offset]
    for offset in offsets:
        offsets += [sub for sub in _check_one(data, offset, order, big) if sub not in offsets]
        if len(offsets) > _MOST_DIRECTORIES:
            raise too_many_parts()


def _check_one(data: bytes, offset: int, order: str, big: bool) -> list[int]:
    """Check one directory as far as Pillow would load it, and return the offsets of those that it points at."""
    count_code, entry_code, offset_code = ("Q", "HHQ8s", "Q") if big else ("H", "HHI4s", "I")
    first = offset + struct.calcsize(order + count_code)
    if first > len(data):
        return []
    entries, step = struct.unpack_from(order + count_code, data, offset)[0], struct.calcsize(order + entry_code)
    entries = min(entries, (len(data) - first) // step)
    if entries > MOST_PARTS:
        raise too_many_parts()
    bytes_left, numbers_left, pointers = 2 * len(data), _MOST_NUMBERS, {}
    for at in range(first, first + entries * step, step):
        tag, kind, count, inline = struct.unpack_from(order + entry_code, data, at)
        unit, cost = _TYPES.get(kind, (0, 0))
        if count * unit > len(inline):
            if struct.unpack(order + offset_code, inline)[0] + count * unit > len(data):
                break  # here Pillow gives up
            bytes_left -= count * unit
        numbers_left -= count * cost
        if bytes_left < 0 or numbers_left < 0 or (tag in _PIECES and count > _MOST_PIECES):
            raise too_many_parts()
        if tag in _POINTERS and kind in _OFFSET_TYPES and count == 1:
            pointers[tag] = int.from_bytes(inline[:unit], "little" if order == "<" else "big")
    return list(pointers.values())
