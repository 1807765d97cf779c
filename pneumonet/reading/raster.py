"""JPEG, PNG, TIFF, WebP, BMP and GIF through Pillow, from an allow-list told by the content."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from pneumonet.errors import UnreadableImageError
from pneumonet.language import said
from pneumonet.radiograph import Radiograph
from pneumonet.reading.decoding import DECODING
from pneumonet.reading.deep_colour import deep_tones
from pneumonet.reading.directories import check_exif
from pneumonet.reading.limits import ReadingLimits, check_pixels, pick_frame
from pneumonet.reading.parts import check_parts
from pneumonet.reading.tiff import TiffFile, check_tiles, only_page, tiff_pages
from pneumonet.reading.tones import Pixels, grey_of_picture, scale_floats, scale_integers


def raster_format(data: bytes) -> str | None:
    """Return "JPEG", "PNG", "TIFF", "WEBP", "BMP" or "GIF" as the first bytes say, None for anything else.

    >>> raster_format(b"GIF89a"), raster_format(b"%PDF-1.7")
    ('GIF', None)
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    # Two letters are too few to tell a bitmap from a text that starts with them; its header's size tells.
    if data[:2] == b"BM" and data[14:18] in _BITMAP_HEADER_SIZES:
        return "BMP"
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)


def read_raster(data: bytes, frame: int | None, limits: ReadingLimits) -> Radiograph:
    """Decode one frame of a raster file that `raster_format` knows.

    Args:
        data: The whole file.
        frame: Which frame or page, from 0; None for the first.
        limits: The limits to hold, before anything is decoded.

    Raises:
        TooManyPixelsError: If the header declares too many pixels.
        FrameNotFoundError: If the file does not have the frame.
        UnreadableImageError: If there is nothing to read. A decoder's own errors are left to the caller.
    """
    name = str(raster_format(data))
    if name == "TIFF":
        pages = tiff_pages(data)
        index, told = pick_frame(frame, len(pages))
        page = only_page(data, pages[index])
        check_parts(page, name)
        return _radiograph(name, _decoded(name, page, 0, limits), index, len(pages), told)
    check_parts(data, name)
    if name == "WEBP":
        # Pillow's decoder makes room for the whole canvas as soon as it opens the file.
        check_pixels(*_webp_size(data), limits)
    with _PLUGINS[name](BytesIO(data)) as picture:
        check_pixels(*picture.size, limits)
        frames = int(getattr(picture, "n_frames", 1))
    index, told = pick_frame(frame, frames)
    return _radiograph(name, _decoded(name, data, index, limits), index, frames, told)


@dataclass(frozen=True)
class _Tones:
    pixels: Pixels
    colourfulness: float = 0.0
    warnings: tuple[str, ...] = ()


def _radiograph(name: str, tones: _Tones, index: int, frames: int, told: tuple[str, ...]) -> Radiograph:
    return Radiograph(
        pixels=np.ascontiguousarray(tones.pixels),
        format=name,
        colourfulness=tones.colourfulness,
        frame=index,
        frames=frames,
        warnings=told + tones.warnings,
    )


def _decoded(name: str, data: bytes, index: int, limits: ReadingLimits) -> _Tones:
    # A plugin's class, not `Image.open`: that one warns or raises at a size of its own, by a process-wide setting.
    with _PLUGINS[name](BytesIO(data)) as picture:
        # A frame of an animation is drawn over the ones before it, so they are decoded too.
        check_pixels(*picture.size, limits, decoded_frames=index + 1)
        pixels = picture.width * picture.height
        if isinstance(picture, TiffFile):
            pixels = max(pixels, check_tiles(picture, limits))
        # A later frame of a GIF may enlarge its canvas, and nothing says so before those up to it are decoded.
        with DECODING.turn(limits.max_pixels if index else pixels, limits):
            _load(picture, index, limits)
            tones = _deep_tones(picture) if picture.mode in _DEEP_MODES else _colour_tones(picture, name, data)
            return replace(tones, pixels=_upright(tones.pixels, _orientation(picture)))


def _load(picture: ImageFile, index: int, limits: ReadingLimits) -> None:
    for step in range(index + 1):
        picture.seek(step)
        # A frame of a GIF may enlarge its canvas, and the next step decodes it.
        check_pixels(*picture.size, limits, decoded_frames=step + 1)
    picture.load()


def _colour_tones(picture: ImageFile, name: str, data: bytes) -> _Tones:
    if name in ("PNG", "TIFF") and picture.tell() == 0:
        deep = deep_tones(picture, lambda: _PLUGINS[name](BytesIO(data)))
        if deep is not None:
            return _Tones(*deep)
    return _Tones(*grey_of_picture(picture))


def _deep_tones(picture: ImageFile) -> _Tones:
    values: NDArray[Any] = np.asarray(picture)
    if picture.mode == "F":
        pixels, warnings = scale_floats(values)
        return _Tones(_positive(pixels, picture), warnings=warnings)
    if getattr(picture, "is_unsigned", False):
        values = values.view(np.uint32)
    pixels = _positive(scale_integers(values), picture)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        pixels[values == transparent] = 0
    return _Tones(pixels)


def _positive(pixels: Pixels, picture: ImageFile) -> Pixels:
    return np.subtract(1, pixels, out=pixels) if getattr(picture, "is_negative", False) else pixels


def _orientation(picture: ImageFile) -> int:
    # A film is not refused over a damaged tag; and Pillow has many ways to fail on one.
    try:
        check_exif(_exif(picture))
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _exif(picture: ImageFile) -> bytes:
    """Return what Pillow would take for EXIF: the block, else the text that ImageMagick keeps it as in a PNG."""
    text: str = picture.info.get("Raw profile type exif", "")
    block: bytes = picture.info.get("exif") or bytes.fromhex("".join(text.split("\n")[3:]))
    return block


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turn = _UPRIGHT.get(orientation)
    return pixels if turn is None else turn(pixels)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read the canvas (width, height) from the first chunk, as RFC 9649 lays it out."""
    kind = data[12:16]
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L" and len(data) >= 25:
        packed = int.from_bytes(data[21:25], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    if kind == b"VP8 " and len(data) >= 30:
        width, height = struct.unpack("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    raise UnreadableImageError(said("The file's header is damaged or incomplete."))


_MAGIC: Final = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
}
_BITMAP_HEADER_SIZES: Final = tuple(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))
_PLUGINS: Final[dict[str, Callable[[BytesIO], ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffFile,
    "WEBP": WebPImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
}
_DEEP_MODES: Final = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
# EXIF orientation -> what makes the picture upright; 1 is upright, and other values mean nothing.
_UPRIGHT: Final[dict[int, Callable[[Pixels], Pixels]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: lambda pixels: np.rot90(pixels, 1),
}
