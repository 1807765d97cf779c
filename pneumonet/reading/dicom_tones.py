"""Stored values -> tones, in the order of PS3.4 N.2.1: modality LUT, VOI LUT or window, then the polarity."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.pixels import apply_rescale, apply_windowing

from pneumonet.language import said
from pneumonet.reading.dicom_tags import first_of, number_of, text_of, whole_number_of
from pneumonet.reading.tones import Pixels, by_blocks, fill_gaps, scale_to_range

ODD_WINDOW: Final = said("The film's display window is not usable; its own range of tones was used.")
ODD_RESCALE: Final = said("The film's rescale slope is not usable; its values were taken as stored.")
ODD_LOOK_UP: Final = said("The film's lookup table is not usable; it was left out.")
_WINDOW_FUNCTIONS: Final = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def grey_of_stored(stored: NDArray[Any], dataset: Any, *, inverted: bool) -> tuple[Pixels, tuple[str, ...]]:
    """Turn a grey frame's stored values into tones.

    Args:
        stored: (H, W) integers or floats as decoded.
        dataset: The frame's data set; not changed.
        inverted: Whether the photometric interpretation is MONOCHROME1, whose least value is white.

    Returns:
        (H, W) float32 in [0, 1], black = air, and what to tell the user. Pixel padding is black.

    Raises:
        UnreadableImageError: If the values are floats and none is finite.
    """
    padding = _padding(stored, dataset)
    values, warnings = _apply_modality(stored, dataset)
    # A window keeps what is no number, and a table has no entry for it. A slope may have made more of them.
    values, gaps = fill_gaps(values, inverted=inverted)
    pixels, told = _apply_voi(values, dataset, padding)
    if inverted:
        np.subtract(1, pixels, out=pixels)
    if padding is not None:
        pixels[padding] = 0
    return pixels, warnings + gaps + told


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_] | None:
    """Return where the frame is padding (PS3.3 C.7.5.1.1.2); None where nothing is, or where all of it would be."""
    value = whole_number_of(dataset, "PixelPaddingValue")
    if value is None or stored.dtype.kind == "f":
        return None
    limit = whole_number_of(dataset, "PixelPaddingRangeLimit")
    ends = [_as_stored(end, stored.dtype) for end in (value, value if limit is None else limit)]
    padding = (stored >= min(ends)) & (stored <= max(ends))
    return padding if padding.any() and not padding.all() else None


def _as_stored(value: int, dtype: np.dtype[Any]) -> int:
    """Read a value whose sign the file may have got wrong as the pixels' type does."""
    return int(np.array([value], np.int64).astype(dtype)[0])


def _apply_modality(stored: NDArray[Any], dataset: Any) -> tuple[NDArray[Any], tuple[str, ...]]:
    item = first_of(dataset, "ModalityLUTSequence")
    if item is not None:
        table = _table(item, dataset)
        if table is None:
            return stored, (ODD_LOOK_UP,)
        whole, gaps = fill_gaps(stored)
        return _look_up(whole, *table), gaps
    slope, intercept = number_of(dataset, "RescaleSlope"), number_of(dataset, "RescaleIntercept")
    if slope is None or intercept is None or (slope, intercept) == (1, 0):
        return stored, ()
    if slope == 0:
        return stored, (ODD_RESCALE,)
    rescale = Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = slope, intercept
    return by_blocks(lambda part: apply_rescale(part, rescale), stored, np.float64), ()


def _apply_voi(values: NDArray[Any], dataset: Any, padding: NDArray[np.bool_] | None) -> tuple[Pixels, tuple[str, ...]]:
    told: tuple[str, ...] = ()
    item = first_of(dataset, "VOILUTSequence")
    if item is not None:
        table = _table(item, dataset)
        if table is not None:
            return _tones_of_table(values, *table), ()
        told = (ODD_LOOK_UP,)
    if "WindowCenter" in dataset or "WindowWidth" in dataset:
        windowed = _apply_window(values, dataset)
        if windowed is not None:
            return windowed, told
        told += (ODD_WINDOW,)
    return _own_range(values, padding), told


def _apply_window(values: NDArray[Any], dataset: Any) -> Pixels | None:
    """Apply the first window; None where it is not valid, or leaves one tone of an image that has several."""
    center, width = number_of(dataset, "WindowCenter"), number_of(dataset, "WindowWidth")
    function = (text_of(dataset, "VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or function not in _WINDOW_FUNCTIONS:
        return None
    # PS3.3 C.11.2.1.2.1: at least 1 for LINEAR, above 0 for the others.
    if width <= 0 or (function == "LINEAR" and width < 1):
        return None
    window = Dataset()
    window.WindowCenter, window.WindowWidth, window.VOILUTFunction = center, width, function
    # One unsigned bit makes [0, 1] the window's output range.
    window.BitsStored, window.PixelRepresentation, window.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    with np.errstate(over="ignore"):  # a sigmoid far below its centre: 1 / (1 + inf) is the 0 that is meant
        pixels = by_blocks(lambda part: np.clip(apply_windowing(part, window), 0, 1), values, np.float32)
    return None if np.ptp(pixels) == 0 and values.max() > values.min() else pixels


def _own_range(values: NDArray[Any], padding: NDArray[np.bool_] | None) -> Pixels:
    low, high = values.min(), values.max()
    if padding is not None:
        shown = ~padding
        low, high = values.min(where=shown, initial=high), values.max(where=shown, initial=low)
    return scale_to_range(values, float(low), float(high))


def _tones_of_table(values: NDArray[Any], first: int, entries: NDArray[np.uint16]) -> Pixels:
    """Look up and scale by the entries' real bit depth.

    The table says how dark the film is meant to be, so its image's own range is no measure; and the depth in the
    descriptor is not either, as writers put 16 bits over entries of 12.
    """
    top = max(1, 2 ** int(entries.max()).bit_length() - 1)
    return scale_to_range(_look_up(values, first, entries), 0, top)


def _look_up(values: NDArray[Any], first: int, entries: NDArray[np.uint16]) -> NDArray[np.uint16]:
    # pydicom's apply_voi keeps the index in the entries' type, which wraps in a long table of 8-bit entries.
    # Clipped as floats, of which the largest have no whole number.
    def found(part: NDArray[Any]) -> Any:
        index = np.clip(np.rint(part, dtype=np.float64) - first, 0, len(entries) - 1)
        return entries[index.astype(np.int64)]

    return by_blocks(found, values, np.uint16)


def _table(item: Any, dataset: Any) -> tuple[int, NDArray[np.uint16]] | None:
    """Return a lookup table's first mapped value and its entries (PS3.3 C.11.2.1.1); None where it has none."""
    try:
        count, first = int(item.LUTDescriptor[0]) or 2**16, int(item.LUTDescriptor[1])
        entries = _entries(item.LUTData, count, dataset.original_encoding[1] is not False)
    except Exception:  # a damaged table is an absent one
        return None
    return (first, entries[:count]) if len(entries) else None


def _entries(data: Any, count: int, little_endian: bool) -> NDArray[np.uint16]:
    if not isinstance(data, bytes):
        return np.array(data, np.uint16).reshape(-1)
    if len(data) < 2 * count:  # entries of 8 bits, packed
        return np.frombuffer(data, np.uint8).astype(np.uint16)
    return np.frombuffer(data, "<u2" if little_endian else ">u2").astype(np.uint16)
