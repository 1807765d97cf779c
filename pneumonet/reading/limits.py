"""What a film may cost, which of its frames is read, and how a decoder's failure is told."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from pneumonet.errors import FrameNotFoundError, PneumoNetError, TooManyPixelsError, UnreadableImageError
from pneumonet.language import Said, said
from pneumonet.settings import Settings

# Chunks, markers, frames, pages, fragments or directory entries: a film has tens, a long sequence thousands.
MOST_PARTS: Final = 10_000


@dataclass(frozen=True)
class ReadingLimits:
    """How large a film may be, and how many are decoded at once.

    Attributes:
        max_bytes: The most bytes a file may have.
        max_pixels: The most pixels that a header may declare for what has to be decoded.
        max_pixels_at_once: The most pixels that the process decodes at one time, but for a film of more: it is decoded
            alone.
        waiting_seconds: How long a film may wait for others to be decoded.
    """

    max_bytes: int = 10_000_000
    max_pixels: int = 40_000_000
    max_pixels_at_once: int = 40_000_000
    waiting_seconds: int = 60

    @classmethod
    def of(cls, settings: Settings) -> "ReadingLimits":
        """Return the limits that an operator chose."""
        return cls(settings.max_upload_bytes, settings.max_pixels, settings.decoding_pixels, settings.request_seconds)


def in_megabytes(size: int) -> Said:
    """Word a number of bytes in units of 1,000,000.

    >>> in_megabytes(10_000_000), in_megabytes(1_500)
    ('10 MB', '0.0015 MB')
    """
    return said("{megabytes:g} MB", megabytes=size / 1e6)


def check_pixels(width: int, height: int, limits: ReadingLimits, *, decoded_frames: int = 1) -> None:
    """Refuse a picture whose decoding would cost more pixels than the limit.

    Args:
        width: Columns that the header declares.
        height: Rows that the header declares.
        limits: The limits to hold.
        decoded_frames: How many frames have to be decoded to reach the one asked for.

    Raises:
        TooManyPixelsError: If it is over the limit.
        UnreadableImageError: If there are no pixels.
    """
    if width < 1 or height < 1:
        raise UnreadableImageError(said("The file declares a picture without pixels."))
    if width * height * decoded_frames > limits.max_pixels:
        found = {"width": width, "height": height, "millions": limits.max_pixels / 1e6}
        if decoded_frames > 1:
            raise TooManyPixelsError(
                said(
                    "The file declares {width:,} x {height:,} pixels in {frames} frames; the limit is {millions:g} "
                    "million pixels.",
                    frames=decoded_frames,
                    **found,
                )
            )
        raise TooManyPixelsError(
            said("The file declares {width:,} x {height:,} pixels; the limit is {millions:g} million pixels.", **found)
        )


def too_many_parts() -> UnreadableImageError:
    """Return the refusal of a file whose pieces, each cheap to write, would cost a decoder too much together."""
    return UnreadableImageError(
        said("The file is made of too many parts to be a film."),
        hint=said("Export the film again, as a plain PNG, JPEG or DICOM file."),
    )


def pick_frame(frame: int | None, frames: int) -> tuple[int, tuple[str, ...]]:
    """Return the frame to read, from 0, and what to tell the user about it.

    Raises:
        FrameNotFoundError: If the file has no such frame.

    >>> pick_frame(None, 3)
    (0, ('The file has 3 frames; frame 1 was read.',))
    """
    index = 0 if frame is None else frame
    if not 0 <= index < frames:
        if frames == 1:
            raise FrameNotFoundError(said("The file has 1 frame; there is no frame of index {index}.", index=index))
        raise FrameNotFoundError(
            said("The file has {frames} frames; there is no frame of index {index}.", frames=frames, index=index)
        )
    told = said("The file has {frames} frames; frame {number} was read.", frames=frames, number=index + 1)
    return index, (told,) if frames > 1 else ()


@contextmanager
def translated(message: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an UnreadableImageError with `message`.

    PneumoNet's own errors and MemoryError pass; KeyboardInterrupt and SystemExit are no `Exception` and pass too. A
    decoder written in Rust raises its panics as a class that is none either, and that only its binding has by name.
    """
    _silence_decoders()
    try:
        yield
    except (PneumoNetError, MemoryError):
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise UnreadableImageError(message) from error
        raise


# Decoders warn with the values of tags in the text. The category leaves out Pillow's DecompressionBombWarning,
# a RuntimeWarning that others may have turned into an error on purpose.
_SILENCED: Final = (
    (Warning, r"(pydicom|pylibjpeg|openjpeg|rle|jpeg_ls)(\.|$)"),
    (UserWarning, r"PIL\."),
)


def _silence_decoders() -> None:
    """See that decoders' warnings reach nobody.

    `warnings.catch_warnings` swaps the process's filters and so is unsafe in threads before Python 3.14. A filter
    for those modules that is put in once and stays is safe. It is looked for at every read, as somebody else's
    `catch_warnings` may have taken it away again.
    """
    for category, module in _SILENCED:
        wanted = ("ignore", None, category, re.compile(module), 0)
        if wanted not in warnings.filters[: len(_SILENCED)]:
            warnings.filterwarnings("ignore", category=category, module=module)
