"""From bytes to a DICOM data set, at a cost that a film's tags justify; nothing is decoded."""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pneumonet.errors import PneumoNetError, TooManyPixelsError
from pneumonet.language import said
from pneumonet.reading.decoding import DECODING
from pneumonet.reading.limits import ReadingLimits, too_many_parts

_NAMING_KEYWORDS: Final = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "Rows")
_FIRST_GROUPS: Final = (b"\x02\0", b"\x08\0", b"\0\x08")
# What a pixel may take up once inflated: 32 bits, or three channels of 8 and some room.
_MAX_BYTES_A_PIXEL: Final = 4
_INFLATED_HEADER_BYTES: Final = 1 << 24
# pydicom reads one to four times for an element, an item or a fragment. A film has some hundreds of them.
_MOST_READS: Final = 25_000

_PIXELS: Final = (0x7FE00001, 0x7FE00002, 0x7FE00008, 0x7FE00009, 0x7FE00010)
# Modality and VOI tables, of which the first counts; and palettes, plain and segmented.
_SEQUENCES: Final = (0x00283000, 0x00283010)
_TABLES: Final = (*_SEQUENCES, *range(0x00281201, 0x00281205), *range(0x00281221, 0x00281225))
_MOST_TABLE_BYTES: Final = 2 * 2**16 + 4096
_MOST_VALUE_BYTES: Final = 1 << 16
_TAKEN_APART: Final = (b"\x02\0", b"\x08\0\x05\0", b"\0\x08\0\x05")
_KEPT_AS_BYTES: Final = (None, "OB", "OD", "OF", "OL", "OV", "OW", "UN")


def is_dicom(data: bytes) -> bool:
    """Whether the bytes are a DICOM file, with its preamble or without.

    pydicom's forced reading makes a data set of any bytes, a letter included, so a file without the preamble has to
    start with a group that DICOM files start with and to hold an element that names what it is.

    Raises:
        UnreadableImageError: If it has too many elements to tell.
    """
    if data[128:132] == b"DICM":
        return True
    if data[:4] != b"DICM" and data[:2] not in _FIRST_GROUPS:
        return False
    try:
        head = _parsed(data, stop_before_pixels=True)
        return any(keyword in head for keyword in _NAMING_KEYWORDS)
    except _DeflatedError:  # nothing else has the transfer syntax of deflated files
        return True
    except PneumoNetError:
        raise
    except Exception:  # no parser's error says more than that this is no DICOM
        return False


def read_file(data: bytes, limits: ReadingLimits, turns: ExitStack) -> Any:
    """Parse a whole DICOM file.

    Elements too long for what they mean are left out: pydicom makes an object of each of a value's parts.

    Args:
        data: The file.
        limits: How much a deflated file may inflate to.
        turns: Takes the turn at decoding that a deflated file needs from here on.

    Returns:
        The data set, with a transfer syntax in its file meta.

    Raises:
        TooManyPixelsError: If it would inflate to more than a film within the limits can take.
        UnreadableImageError: If it has too many elements. A parser's own errors are left to the caller.
        TookTooLongError: If the turn did not come in time.
    """
    try:
        dataset = _parsed(data)
    except _DeflatedError as deflated:
        # What it declares lies in the deflated part; but no pixel takes less than a bit.
        pixels = min(limits.max_pixels, 8 * _inflated_bytes(deflated.body, limits))
        turns.enter_context(DECODING.turn(pixels, limits))
        dataset = _of_deflated(deflated, zlib.decompress(deflated.body, -zlib.MAX_WBITS))
    if not getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID"):
        # pydicom has told implicit from explicit and the byte order by the first element.
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset


def read_header(data: bytes) -> Any | None:
    """Return a DICOM file's tags up to its pixels; None where the bytes are no DICOM file.

    Raises:
        UnreadableImageError: If it has too many elements.
    """
    if not is_dicom(data):
        return None
    try:
        return _parsed(data, stop_before_pixels=True)
    except _DeflatedError as deflated:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        return _of_deflated(deflated, inflate.decompress(deflated.body, _INFLATED_HEADER_BYTES))


class _DeflatedError(Exception):
    """The file goes on deflated: pydicom would inflate it, whatever becomes of it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head, self.body = head, body


class _MeteredFile(BytesIO):
    """A file that answers so many reads, and none for all the rest, which pydicom asks for only to inflate it.

    pydicom reads eight bytes of an element, then its value. Those of the file meta and of the character set it takes
    apart at once, before they could be left out for their length.
    """

    reads, start = 0, b""

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if size is None or size < 0:
            raise _DeflatedError(self.getvalue()[: self.tell()], super().read())
        if self.reads > _MOST_READS or (size > _MOST_VALUE_BYTES and self.start.startswith(_TAKEN_APART)):
            self.reads = _MOST_READS + 1
            raise too_many_parts()
        found = super().read(size)
        if size == 8:
            self.start = found
        return found

    @contextmanager
    def told(self) -> Iterator[None]:
        """See that the refusal gets out: inside a sequence, pydicom makes an error of its own of any."""
        try:
            yield
        except Exception as error:
            if self.reads > _MOST_READS:
                raise too_many_parts() from error
            raise


def _parsed(data: bytes, *, stop_before_pixels: bool = False) -> Any:
    # Where a writer left out the 128 bytes before it, "DICM" stands at the start.
    file = _MeteredFile(data[4:] if data[:4] == b"DICM" else data)
    with file.told():
        return _without_long_values(dcmread(file, force=True, stop_before_pixels=stop_before_pixels))


def _of_deflated(deflated: _DeflatedError, inflated: bytes) -> Any:
    file = _MeteredFile(inflated)
    with file.told():
        dataset = read_dataset(file, is_implicit_VR=False, is_little_endian=True)
    dataset.file_meta = dcmread(BytesIO(deflated.head), force=True).file_meta
    return _without_long_values(dataset)


def _inflated_bytes(body: bytes, limits: ReadingLimits) -> int:
    """Return what a deflated data set would inflate to; refuse one of more than any film within the limit."""
    most = room = limits.max_pixels * _MAX_BYTES_A_PIXEL + limits.max_bytes
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    while body and not inflate.eof:
        room -= len(inflate.decompress(body, 1 << 20))
        if room < 0:
            raise TooManyPixelsError(said("The DICOM file inflates to more than a film within the limit can take."))
        body = inflate.unconsumed_tail
    return most - room


def _without_long_values(dataset: Any) -> Any:
    for tag, element in list(dataset.items()):
        if not isinstance(element, RawDataElement):
            continue
        if tag in _SEQUENCES:
            element = dataset[tag] = element._replace(value=_first_item(element))
        if len(element.value or b"") > _most_bytes(tag, element.VR):
            del dataset[tag]
    return dataset


def _first_item(element: RawDataElement) -> bytes:
    """Return a sequence's bytes up to the end of its first item, where that has a length."""
    value = element.value or b""
    length = int.from_bytes(value[4:8], "little" if element.is_little_endian else "big")
    return value if length == 0xFFFFFFFF else value[: 8 + length]


def _most_bytes(tag: int, vr: str | None) -> float:
    if tag in _PIXELS and vr in _KEPT_AS_BYTES:
        return float("inf")
    return _MOST_TABLE_BYTES if tag in _TABLES else _MOST_VALUE_BYTES
