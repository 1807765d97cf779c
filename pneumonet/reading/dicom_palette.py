"""Palette colour (PS3.3 C.7.9) -> tones."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut

from pneumonet.errors import UnreadableImageError
from pneumonet.language import said
from pneumonet.reading.tones import Block, Pixels, blocks, grey_of_channels

_CHANNELS: Final = ("Red", "Green", "Blue", "Alpha")
_DISCRETE, _LINEAR = 0, 1
_MOST_ENTRIES: Final = 1 << 16
_DAMAGED: Final = said("The DICOM file's colour palette is damaged.")


def grey_of_palette(stored: NDArray[Any], dataset: Any) -> tuple[Pixels, float]:
    """Look up a frame's colours and take their luma.

    Args:
        stored: (H, W) indices.
        dataset: The frame's data set, with its palettes.

    Returns:
        As `tones.grey_of_channels`.

    Raises:
        UnreadableImageError: If a palette's segments, or the indices, make more entries than a palette has.
    """
    for channel in _CHANNELS:
        _check_segments(dataset, dataset.get(f"Segmented{channel}PaletteColorLookupTableData"))
    low, high = int(stored.min()), int(stored.max())
    if high - low >= _MOST_ENTRIES:
        raise UnreadableImageError(_DAMAGED)
    # Of every index once: pydicom takes a palette apart anew for each array.
    colours = apply_color_lut(np.arange(low, high + 1, dtype=stored.dtype), dataset)[:, :3]

    def channels_at(block: Block) -> Any:
        return colours[stored[block].astype(np.int64) - low]

    # Some writers keep 8-bit colours in 16-bit entries.
    is_of_8_bits = all(channels_at(block).max() <= 0xFF for block in blocks(*stored.shape))
    return grey_of_channels(stored.shape, channels_at, 0xFF if is_of_8_bits else 0xFFFF)


def _check_segments(dataset: Any, segments: bytes | None) -> None:
    """Refuse a segmented palette that pydicom would expand without end: six bytes make up to 65,535 entries."""
    if not segments:
        return
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    width = 1 if dataset.RedPaletteColorLookupTableDescriptor[2] // 8 == 1 else 2
    words = np.frombuffer(segments[: len(segments) // width * width], f"{order}u{width}").tolist()
    at = entries = 0
    while at + 1 < len(words):
        kind, length = words[at : at + 2]
        entries += length
        # An indirect segment repeats others, and those may be indirect too; no writer of films is known to make any.
        if kind not in (_DISCRETE, _LINEAR) or entries > _MOST_ENTRIES:
            raise UnreadableImageError(_DAMAGED)
        at += 2 + (length if kind == _DISCRETE else 1)
