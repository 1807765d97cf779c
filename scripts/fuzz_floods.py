"""Small files that cost a reader much: of very many parts, of parts that lie over each other, or that unfold.

Each is cut to what just goes over a limit of `pneumonet.reading`; nothing keeps an attacker to that.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

_MANY: Final = 10_500
_MEBIBYTE: Final = zlib.compress(bytes(1 << 20))
_GREY: Final = Image.fromarray(np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8))


@cache
def floods() -> dict[str, bytes]:
    """Return them by name; a name starts with the format."""
    png, jpeg, gif = _saved("PNG"), _saved("JPEG"), _saved("GIF")
    return {
        "PNG of empty chunks": png[:33] + _chunk(b"abCd", b"") * _MANY + png[33:],
        "PNG of empty chunks behind the pixels": png[:-12] + _chunk(b"abCd", b"") * _MANY + png[-12:],
        "PNG of texts that inflate": png[:33] + _chunk(b"zTXt", b"\0\0" + _MEBIBYTE) * 33 + png[33:],
        "JPEG of empty segments": jpeg[:2] + b"\xff\xe5\0\2" * _MANY + jpeg[2:],
        "JPEG of restart markers": jpeg[:2] + b"\xff\xd0" * _MANY + jpeg[2:],
        "JPEG of fill bytes": jpeg[:2] + b"\xff" * _MANY + jpeg[2:],
        "JPEG of bytes between markers": jpeg[:20] + b"\1" * _MANY + jpeg[20:],
        "JPEG of EXIF in pieces": jpeg[:2] + _segment(0xE1, b"Exif\0\0MM\0*") * 201 + jpeg[2:],
        "JPEG of EXIF's start": jpeg[:2] + _segment(0xE1, b"Exif\0\0" * 10_000) + jpeg[2:],
        "JPEG of EXIF over itself": jpeg[:2] + _segment(0xE1, b"Exif\0\0" + overlapping(300, 60_000)) + jpeg[2:],
        "JPEG of pictures' tags over each other": jpeg[:2]
        + _segment(0xE2, b"MPF\0" + overlapping(300, 60_000))
        + jpeg[2:],
        "JPEG of tables": jpeg[:2] + _segment(0xDB, bytes(65_000)) * 17 + jpeg[2:],
        "JPEG of scans": _of_scans(65),
        "GIF of empty frames": gif[:-1] + b",\0\0\0\0\1\0\1\0\0\2\0" * _MANY + b";",
        "GIF of a comment in pieces": _behind_palette(gif, b"!\xfe" + b"\1a" * 1001 + b"\0"),
        "GIF of an extension in pieces": _behind_palette(gif, b"!\xf1" + b"\1a" * _MANY + b"\0"),
        "GIF of pixels in pieces": gif[:-1] + b",\0\0\0\0\1\0\1\0\0\2" + b"\1\0" * 100_001 + b"\0;",
        "GIF of bytes between blocks": _behind_palette(gif, b"\1" * _MANY),
        "TIFF of empty pages": b"II*\0\x08\0\0\0"
        + b"".join(b"\0\0" + struct.pack("<I", 8 + 6 * (page + 1)) for page in range(_MANY)),
        "TIFF of tags": tiff([(40_000 + tag, 7, 1, 0) for tag in range(_MANY)]),
        "TIFF of strips": tiff([(257, 4, 1, 70_000), (273, 4, 70_000, 8), (278, 4, 1, 1)], 280_008),
        "TIFF of strips over each other": tiff([(257, 4, 1, 60), (273, 4, 500, 3_000), (278, 4, 1, 59)], 8_000),
        "TIFF of tags over each other": tiff([(40_000 + tag, 7, 50_000, 0) for tag in range(50)], 50_000),
        "TIFF of fractions": tiff([(282, 5, 25_000, 8)], 200_008),
        "TIFF of a tile": tiff([(322, 4, 1, 60_000), (323, 4, 1, 60_000), (324, 4, 1, 8)]),
        "BMP of a long row": _bitmap(30_000_000, 1, b"\0\2\0\xff"),
        "BMP of rows cut short": _bitmap(6_000, 6_000, b"\1\1\0\0" * 6_000),
        "DICOM of deflated elements": _deflated(26_000),
        "DICOM of fragments": dicom(JPEGBaseline8Bit, [b"\0\0"] * _MANY),
        "DICOM of JPEG 2000 in many channels": dicom(JPEG2000Lossless, [jpeg_2000(channels=16_384, side=600)]),
        "DICOM of JPEG 2000 in many tiles": dicom(JPEG2000Lossless, [jpeg_2000(tile=1, side=250)]),
        "DICOM of JPEG 2000 in small precincts": dicom(JPEG2000Lossless, [jpeg_2000(precinct=0, side=2000)]),
        "DICOM of JPEG 2000 in small blocks": dicom(JPEG2000Lossless, [jpeg_2000(block=0, side=6000)]),
        "DICOM of JPEG 2000 in many layers": dicom(JPEG2000Lossless, [jpeg_2000(layers=65_535, precinct=3, side=64)]),
        "DICOM of JPEG 2000 in an endless box": dicom(JPEG2000Lossless, [b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(16)]),
        "DICOM of JPEG-LS in many channels": dicom(JPEGLSLossless, [jpeg_ls(255, 6_000)]),
        "DICOM of a palette that unfolds": _palette_film(),
    }  # fmt: skip


def tiff(tags: Sequence[tuple[int, int, int, int]], size: int = 0) -> bytes:
    """Return a grey page of 64 x 48 with (tag, type, count, value) put in or over its own, padded to a size."""
    own = [(256, 4, 1, 64), (257, 4, 1, 48), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries = sorted(({tag: entry for entry in (*own, *tags) for tag in entry[:1]}).values())
    start = max(8 + 64 * 48, size)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (b"II*\0" + struct.pack("<I", start)).ljust(start, b"\0") + directory + bytes(4)


def overlapping(tags: int, size: int) -> bytes:
    """Return EXIF whose values are all of its own bytes."""
    entries = b"".join(struct.pack("<HHII", 1_000 + tag, 7, size, 0) for tag in range(tags))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", tags) + entries).ljust(size, b"\0")


def jpeg_2000(
    *, side: int, channels: int = 1, tile: int = 0, precinct: int = 15, block: int = 4, layers: int = 1
) -> bytes:
    """Return an empty codestream: sides of precincts and blocks are given as exponents, a block's less two."""
    size = struct.pack(">H8IH", 0, side, side, 0, 0, tile or side, tile or side, 0, 0, channels)
    style = struct.pack(">BBHBBBBBBB", 1, 0, layers, 0, 0, block, block, 0, 1, precinct * 17)
    segments = [(0x51, size + b"\7\1\1" * channels), (0x52, style), (0x5C, b"\x40\x40")]
    header = b"\xff\x4f" + b"".join(_segment(marker, body) for marker, body in segments)
    return header + b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 15, 0, 1) + b"\xff\x93\0\xff\xd9"


def jpeg_ls(channels: int, side: int) -> bytes:
    """Return a header and hardly any data."""
    samplings = b"".join(bytes((channel, 0x11, 0)) for channel in range(channels))
    frame = struct.pack(">BHHB", 8, side, side, channels) + samplings
    return b"\xff\xd8" + _segment(0xF7, frame) + _segment(0xDA, b"\1\1\0\0\0\0") + bytes(100) + b"\xff\xd9"


def dicom(syntax: str, fragments: Sequence[bytes], **tags: Any) -> bytes:
    """Return a grey film of 64 x 48 that keeps its pixels in fragments; without any, in so many zeros."""
    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    film.Rows, film.Columns, film.SamplesPerPixel, film.PhotometricInterpretation = 48, 64, 1, "MONOCHROME2"
    film.BitsAllocated, film.BitsStored, film.HighBit, film.PixelRepresentation = 8, 8, 7, 0
    for keyword, value in tags.items():
        setattr(film, keyword, value)
    film.PixelData = encapsulate(list(fragments), has_bot=False) if fragments else bytes(48 * 64)
    film["PixelData"].VR = "OB"
    film["PixelData"].is_undefined_length = bool(fragments)
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _deflated(elements: int) -> bytes:
    film = dicom(DeflatedExplicitVRLittleEndian, [])
    empty = b"\x29\0\x10\0LO\0\0" * elements
    start = film.index(b"1.2.840.10008.1.2.1.99") + 22
    start = start + 8 + struct.unpack_from("<H", film, start + 6)[0]
    start = start + 8 + struct.unpack_from("<H", film, start + 6)[0]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return film[:start] + squeeze.compress(empty + zlib.decompress(film[start:], -zlib.MAX_WBITS)) + squeeze.flush()


def _palette_film() -> bytes:
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel in ("Red", "Green", "Blue"):
        tags[f"{channel}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"Segmented{channel}PaletteColorLookupTableData"] = struct.pack("<6H", 0, 1, 0, 1, 65_535, 5) * 3
    return dicom(ExplicitVRLittleEndian, [], **tags)


def _of_scans(scans: int) -> bytes:
    progressive = _saved("JPEG", progressive=True)
    return progressive[:-2] + progressive[progressive.rindex(b"\xff\xda") : -2] * scans + progressive[-2:]


def _bitmap(width: int, height: int, body: bytes) -> bytes:
    palette = b"".join(bytes([grey, grey, 255 - grey, 0]) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078) + header + palette + body


def _behind_palette(gif: bytes, blocks: bytes) -> bytes:
    start = 13 + (3 << (gif[10] & 7) + 1 if gif[10] & 0x80 else 0)
    return gif[:start] + blocks + gif[start:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def _saved(file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    _GREY.save(file, file_format, **options)
    return file.getvalue()
