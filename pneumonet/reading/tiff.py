"""TIFF: where its pages are, and the deep grey layouts that Pillow leaves out."""

import struct

from PIL import TiffImagePlugin

from pneumonet.reading.limits import MOST_PARTS, ReadingLimits, check_pixels, too_many_parts


def tiff_pages(data: bytes) -> list[int]:
    """Return the offset of every page's directory, in order, without reading any.

    Pillow counts pages by loading each, and takes seconds over a file of ten thousand.

    Raises:
        UnreadableImageError: If there are too many.
        struct.error: If the chain of directories leads out of the file.
    """
    offset, order, big = first_directory(data)
    pages: list[int] = []
    seen = {0}
    while offset not in seen:
        if len(pages) == MOST_PARTS:
            raise too_many_parts()
        pages.append(offset)
        seen.add(offset)
        offset = _next_directory(data, offset, order, big)
    return pages


def first_directory(data: bytes) -> tuple[int, str, bool]:
    """Return the offset of the first page's directory, the byte order as struct has it, and whether it is BigTIFF.

    Raises:
        struct.error: If the file ends before it says so.
    """
    order, big = _layout(data)
    return int(struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]), order, big


def only_page(data: bytes, offset: int) -> bytes:
    """Return the file with the page at `offset` for its first."""
    order, big = _layout(data)
    if big:
        return data[:8] + struct.pack(order + "Q", offset) + data[16:]
    return data[:4] + struct.pack(order + "I", offset) + data[8:]


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF whose deep grey layouts that Pillow has no entry for are told to it as their nearest kin.

    Pillow knows no unsigned 32 bits in big-endian files, and forgets that zero may be white above 8 bits.

    Attributes:
        is_negative: Whether zero is white in the values that Pillow returns.
        is_unsigned: Whether the signed 32-bit values that Pillow returns are unsigned ones.
    """

    is_negative = False
    is_unsigned = False

    def _setup(self) -> None:
        bits = tuple(self.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
        kind = tuple(self.tag_v2.get(TiffImagePlugin.SAMPLEFORMAT, (1,)))
        photometric = self.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0)
        deep = bits in ((16,), (32,)) and photometric in (0, 1)
        self.is_negative = deep and photometric == 0
        self.is_unsigned = deep and bits == (32,) and kind == (1,)
        if self.is_negative:
            self.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 1
        if self.is_unsigned:
            self.tag_v2[TiffImagePlugin.SAMPLEFORMAT] = (2,)
        super()._setup()


def check_tiles(picture: TiffFile, limits: ReadingLimits) -> int:
    """Refuse tiles that are larger than a picture may be, or that lie over each other: the decoder fills each.

    Args:
        picture: Opened, not loaded.
        limits: The limits to hold.

    Returns:
        The pixels of a tile, for one of which the decoder makes room; 0 where there are none.

    Raises:
        TooManyPixelsError: If a tile is over the limit.
        UnreadableImageError: If the tiles together are larger than the picture.
    """
    tags, pixels = picture.tag_v2, 0
    if TiffImagePlugin.TILEWIDTH in tags and TiffImagePlugin.TILELENGTH in tags:
        width, height = tags[TiffImagePlugin.TILEWIDTH], tags[TiffImagePlugin.TILELENGTH]
        check_pixels(width, height, limits)
        pixels = int(width * height)
    boxes = [tile.extents for tile in picture.tile if tile.extents is not None]
    drawn = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    if drawn > picture.width * picture.height * len(picture.getbands()):
        raise too_many_parts()
    return pixels


def _layout(data: bytes) -> tuple[str, bool]:
    # As Pillow has it, which knows no big-endian BigTIFF: what is checked has to be what it reads.
    return "<" if data[:2] == b"II" else ">", data[2:3] == b"+"


def _next_directory(data: bytes, offset: int, order: str, big: bool) -> int:
    count_code, entry_bytes, offset_code = ("Q", 20, "Q") if big else ("H", 12, "I")
    count = int(struct.unpack_from(order + count_code, data, offset)[0])
    end = offset + struct.calcsize(order + count_code) + count * entry_bytes
    return int(struct.unpack_from(order + offset_code, data, end)[0])
