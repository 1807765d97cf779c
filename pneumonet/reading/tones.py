"""Stored values -> tones in [0, 1], whatever the file's format."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageCms

from pneumonet.errors import UnreadableImageError
from pneumonet.language import said

Pixels = NDArray[np.float32]
Block = tuple[slice, slice]

NOT_NUMBERS: Final = said("The file's pixels are not numbers.")
_GAPS_FILLED: Final = said("Some of the file's pixels are not numbers; they were shown as its darkest tone.")
_HALF_OF_THE_LARGEST: Final = float(np.finfo(np.float64).max) / 2  # two numbers within it have a finite difference
_BLOCK_PIXELS: Final = 1 << 16
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's "L"


def blocks(height: int, width: int) -> Iterator[Block]:
    """Yield the parts of a picture, whole rows where they are not too long.

    What turns values into tones takes ten times their room, and a block's is little.

    >>> list(blocks(2, 3))
    [(slice(0, 2, None), slice(0, 3, None))]
    """
    columns = min(width, _BLOCK_PIXELS)
    rows = _BLOCK_PIXELS // columns
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield slice(top, min(top + rows, height)), slice(left, min(left + columns, width))


def by_blocks(function: Callable[[NDArray[Any]], NDArray[Any]], values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Apply what treats each value alone.

    Args:
        function: From values of any shape to as many.
        values: (H, W) numbers; not changed.
        dtype: Of what is returned.

    Returns:
        (H, W) of `dtype`.
    """
    out = np.empty(values.shape, dtype)
    for block in blocks(*values.shape):
        out[block] = function(values[block])
    return out


def part_of(picture: Image.Image, block: Block) -> Image.Image:
    """Return a block of a picture, with its palette and what else decides its tones."""
    rows, columns = block
    return picture.crop((columns.start, rows.start, columns.stop, rows.stop))


def scale_integers(values: NDArray[Any]) -> Pixels:
    """Scale whole numbers of more than 8 bits by the bit depth that they really use, else by their own range.

    A file of 16 bits may hold 8, 10, 12 or 16; the values tell. What spans less than half of that depth would come
    out flat, and negative values have no such depth: these take their own range.

    Args:
        values: (H, W) integers of any width and sign.

    Returns:
        (H, W) float32 in [0, 1].

    >>> scale_integers(np.array([[0, 1365, 4095]], np.uint16)).round(2).tolist()
    [[0.0, 0.33000001311302185, 1.0]]
    >>> scale_integers(np.array([[50000, 50500, 51000]], np.uint16)).tolist()
    [[0.0, 0.5, 1.0]]
    """
    low, high = int(values.min()), int(values.max())
    if low >= 0:
        if _is_widened_8_bit(values, high):
            return _divided(values, 0xFFFF)
        top = max(0xFF, 2 ** high.bit_length() - 1)
        if low == high or high - low >= top / 2:
            return _divided(values, top)
    return scale_to_range(values, low, high)


def scale_floats(values: NDArray[Any]) -> tuple[Pixels, tuple[str, ...]]:
    """Leave floats that already are tones as they are, and scale others by their own range.

    Args:
        values: (H, W) floats; not changed.

    Returns:
        (H, W) float32 in [0, 1], and what to tell the user about values that are no numbers.

    Raises:
        UnreadableImageError: If no value is finite.
    """
    values, warnings = fill_gaps(values)
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and (low == high or high - low >= 0.5):
        return values.astype(np.float32), warnings
    return scale_to_range(values, low, high), warnings


def fill_gaps(values: NDArray[Any], *, inverted: bool = False) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Put the darkest finite value in the place of what is no finite number.

    Args:
        values: (H, W) numbers; not changed.
        inverted: Whether the largest value is the darkest one.

    Returns:
        The values, and what to tell the user about it.

    Raises:
        UnreadableImageError: If no value is finite.
    """
    finite = np.isfinite(values)
    if finite.all():
        return values, ()
    if not finite.any():
        raise UnreadableImageError(NOT_NUMBERS)
    darkest = values[finite].max() if inverted else values[finite].min()
    return np.where(finite, values, darkest), (_GAPS_FILLED,)


def scale_to_range(values: NDArray[Any], low: float, high: float) -> Pixels:
    """Map [low, high] to [0, 1] and clip what lies outside; an empty range gives zeros.

    >>> scale_to_range(np.array([[-2, 0, 1, 2]]), 0, 2).tolist()
    [[0.0, 0.0, 0.5, 1.0]]
    """
    if high <= low:
        return np.zeros(values.shape, np.float32)
    return by_blocks(lambda part: _scaled(part, low, high), values, np.float32)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    # float32 holds every whole number of up to 16 bits; wider values and floats need the room.
    work: NDArray[Any] = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    if max(abs(low), abs(high)) > _HALF_OF_THE_LARGEST:
        work, low, high = np.clip(work, low, high) / 2, low / 2, high / 2
    np.subtract(work, low, out=work)
    np.divide(work, high - low, out=work)
    return np.clip(work, 0, 1, out=work)


def grey_of_picture(picture: Image.Image) -> tuple[Pixels, float]:
    """Lay an 8-bit picture over black and take its luma.

    Args:
        picture: Any of Pillow's modes of 1 or 8 bits a channel.

    Returns:
        (H, W) float32 in [0, 1], and the mean over pixels of the largest less the smallest channel, in [0, 1].
    """
    if picture.mode == "LAB":
        # At once: to make ready for it takes longer than a block.
        picture = _rgb_of_lab(picture)
    grey = np.empty((picture.height, picture.width), np.float32)
    spread = sum(_lay_grey(part_of(picture, block), grey[block]) for block in blocks(*grey.shape))
    return grey, spread / grey.size / 0xFF


def grey_of_channels(
    shape: tuple[int, int], channels_at: Callable[[Block], NDArray[Any]], top: int
) -> tuple[Pixels, float]:
    """Take the luma of a colour picture of any depth.

    Args:
        shape: (H, W).
        channels_at: Returns a block's channels, (h, w, 3) numbers from 0 up, RGB, of one type for all blocks.
        top: The value of full brightness.

    Returns:
        As `grey_of_picture`.
    """
    # The second takes no memory before it is written to: of 8 bits it never is.
    grey, spreads = np.empty(shape, np.float32), np.empty(shape, np.float32)
    spread, is_of_8_bits = 0, top == 0xFF
    for block in blocks(*shape):
        channels = channels_at(block)
        is_of_8_bits = is_of_8_bits and channels.dtype == np.uint8
        if is_of_8_bits:
            spread += _lay_grey(Image.fromarray(channels), grey[block])
            continue
        tones = np.clip(_divided(channels, top), 0, 1)
        # An equal sum of weights rounds to a hair above 1 in float32.
        grey[block] = np.clip(tones @ _LUMA, 0, 1)
        spreads[block] = np.ptp(tones, axis=-1)
    return grey, spread / grey.size / 0xFF if is_of_8_bits else float(spreads.mean())


def _lay_grey(part: Image.Image, out: Pixels) -> int:
    """Lay an 8-bit part's luma into `out`; return the sum over pixels of the largest less the smallest channel."""
    flat = _over_black(part)
    np.divide(np.asarray(flat.convert("L")), np.float32(0xFF), out=out, dtype=np.float32)
    if flat.mode == "L":
        return 0
    red, green, blue = flat.split()
    lightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    darkest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return int(np.asarray(ImageChops.subtract(lightest, darkest)).sum())


def _over_black(picture: Image.Image) -> Image.Image:
    """Return the picture as "L" or "RGB" without its alpha."""
    if picture.has_transparency_data:
        grey = picture.mode in ("1", "L", "LA", "La")
        # Pillow only turns "La" and a one-bit picture with a transparent tone into "LA" by way of these.
        through = {"1": "L", "La": "LA"}.get(picture.mode, picture.mode)
        opaque = picture.convert(through).convert("LA" if grey else "RGBA")
        black = Image.new("L" if grey else "RGB", picture.size)
        black.paste(opaque.convert(black.mode), mask=opaque.getchannel("A"))
        return black
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def _rgb_of_lab(picture: Image.Image) -> Image.Image:
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(lab, rgb, "LAB", "RGB").apply(picture)


def _divided(values: NDArray[Any], top: int) -> Pixels:
    quotients: Pixels = np.divide(values, np.float32(top), dtype=np.float32)
    return quotients


def _is_widened_8_bit(values: NDArray[Any], high: int) -> bool:
    """Whether 16-bit values are 8-bit ones times 257, as programs widen them: then 65535 is white."""
    if values.dtype.itemsize != 2 or high <= 0xFF:
        return False
    return not any((values[block] % 257).any() for block in blocks(*values.shape))
