"""Phantoms and the files that hold them, all made by code: plumbing only, no anatomy."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
)

from scripts.fuzz_floods import tiff

DX_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"


def phantom(height: int = 60, width: int = 100) -> NDArray[np.uint8]:
    """Draw a body with two lungs and a blob in one of them: uint8, no symmetry, all of 0 to 255 in use."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    picture = 12 + 20 * x
    picture[np.hypot((y - 0.5) / 0.48, (x - 0.5) / 0.45) < 1] = 190
    picture += 40 * y * (picture > 100)
    for centre in (0.33, 0.67):
        picture[np.hypot((y - 0.45) / 0.3, (x - centre) / 0.13) < 1] = 60
    picture[np.hypot((y - 0.55) / 0.08, (x - 0.3) / 0.05) < 1] = 150
    picture[0, 0], picture[-1, -1] = 0, 255
    return picture.round().astype(np.uint8)


def phantom_12_bit(height: int = 60, width: int = 100) -> NDArray[np.uint16]:
    """Return the phantom in 0 to 4095."""
    return (phantom(height, width).astype(np.float64) * 4095 / 255).round().astype(np.uint16)


def noise(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    """Return what does not compress, so that cutting a file always cuts its pixels."""
    return np.random.default_rng(7).integers(0, 256, (height, width), dtype=np.uint8)


def saved(picture: Image.Image | NDArray[Any], file_format: str, **options: Any) -> bytes:
    """Encode with Pillow."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    if file_format == "WEBP":
        options.setdefault("lossless", True)
    if file_format == "JPEG":
        options.setdefault("quality", 99)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_header(width: int, height: int, body: bytes = b"") -> bytes:
    """Return a one-bit PNG of any declared size and hardly any data."""

    return _png(struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0), body)


def zlib_of_zeros(size: int) -> bytes:
    """Return what inflates to so many zeros, though compressed a mebibyte at a time and each like the first."""
    first, last = zlib.compressobj(9, wbits=-15), zlib.compressobj(9, wbits=-15)
    mebibyte = first.compress(bytes(1 << 20)) + first.flush(zlib.Z_FULL_FLUSH)
    rest = last.compress(bytes(size % (1 << 20))) + last.flush()
    return b"\x78\xda" + mebibyte * (size >> 20) + rest + struct.pack(">I", size % 65521 << 16 | 1)


def claiming_the_most(file_format: str) -> bytes:
    """Return a small file that declares 65,535 x 65,535 pixels; as WebP 16,383, the most that it can.

    In PNG and TIFF they are all there: black, of one bit.
    """
    side = 65_535
    if file_format == "DICOM":
        return film(Rows=side, Columns=side)
    if file_format == "PNG":
        return png_header(side, side, zlib_of_zeros((1 + -(-side // 8)) * side))
    if file_format == "TIFF":
        pixels = zlib_of_zeros(-(-side // 8) * side)
        page = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 1), (259, 3, 1, 8), (278, 4, 1, side)]
        made = tiff([*page, (279, 4, 1, len(pixels))], 8 + len(pixels))
        return made[:8] + pixels + made[8 + len(pixels) :]
    data = bytearray(saved(np.zeros((16, 16), np.uint8), file_format))
    if file_format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif file_format == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif file_format == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    else:
        canvas = (16_382).to_bytes(3, "little")
        data[12:12] = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas + canvas
        data[4:8] = struct.pack("<I", len(data) - 8)
    return bytes(data)


def png_of_16_bits(stored: NDArray[np.uint16], *, interlaced: bool = False) -> bytes:
    """Write (H, W, channels) as a PNG of 16 bits a channel, as neither Pillow nor OpenCV can for grey with alpha."""
    height, width, channels = stored.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = [row for part in (_adam7(stored) if interlaced else [stored]) for row in part]
    body = zlib.compress(b"".join(_filtered(row) for row in rows))
    return _png(struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, int(interlaced)), body)


def _adam7(stored: NDArray[Any]) -> list[NDArray[Any]]:
    """Return PNG's seven passes, without empty ones."""
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return [part for y, x, down, right in steps if (part := stored[y::down, x::right]).size]


def _filtered(row: NDArray[np.uint16]) -> bytes:
    """Return a row with PNG's filter "sub": each byte less the same byte of the pixel before."""
    pixels = row.astype(">u2").view(np.uint8).reshape(len(row), -1)
    return b"\1" + np.diff(pixels, axis=0, prepend=np.zeros_like(pixels[:1])).tobytes()


def _png(header: bytes, body: bytes) -> bytes:
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def tiff_by_hand(values: NDArray[Any], photometric: int = 1, alpha: int | None = None) -> bytes:
    """Write one uncompressed page in the byte order and type of the array, as Pillow cannot.

    Args:
        values: (H, W), or (H, W, channels) with three or more.
        photometric: What the values mean: 0 and 1 for grey, 2 for RGB.
        alpha: What ExtraSamples says of a fourth channel: 0 no alpha, 1 premultiplied, 2 not.
    """
    order = ">" if values.dtype.byteorder == ">" else "<"
    raw, kind = values.tobytes(), {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    bits, channels = values.dtype.itemsize * 8, values.shape[2] if values.ndim == 3 else 1
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels) if channels > 1 else b""
    entries = [
        (256, 4, values.shape[1]),
        (257, 4, values.shape[0]),
        (258, 3, 8 + len(raw) if depths else bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8),
        (277, 3, channels),
        (278, 4, values.shape[0]),
        (279, 4, len(raw)),
        *([(338, 3, alpha)] if alpha is not None else []),
        (339, 3, kind),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, code, value in entries:
        many = tag == 258 and depths
        packed = struct.pack(order + "HH", value, 0) if code == 3 and not many else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, code, channels if many else 1) + packed
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(raw) + len(depths))
    return start + raw + depths + directory + struct.pack(order + "I", 0)


def dataset(stored: NDArray[Any] | None = None, *, bits: int = 12, **tags: Any) -> Dataset:
    """Build a grey film as a data set; any tag can be given by keyword, None leaves one out.

    Args:
        stored: (H, W), (frames, H, W) or, with SamplesPerPixel=3, (H, W, 3); the 12-bit phantom by default.
        bits: Bits Stored.
        tags: Elements to set.
    """
    stored = phantom_12_bit() if stored is None else stored
    colour = tags.get("SamplesPerPixel", 1) == 3
    rows, columns = stored.shape[:2] if colour else stored.shape[-2:]
    made = Dataset()
    made.SOPClassUID = DX_STORAGE
    made.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    made.PatientName = "SECRET^NAME"
    made.Modality = "DX"
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = rows, columns
    made.BitsAllocated = stored.dtype.itemsize * 8
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    made["PixelData"].VR = "OW" if stored.dtype.itemsize > 1 else "OB"
    for keyword, value in tags.items():
        if value is None:
            del made[keyword]
        else:
            setattr(made, keyword, value)
    return made


def film_of_floats(values: NDArray[np.floating[Any]], **tags: Any) -> bytes:
    """Build and write a film of Float Pixel Data or, for float64, of Double Float Pixel Data."""
    made = dataset(**tags)
    del made.PixelData, made.PixelRepresentation, made.BitsStored, made.HighBit
    made.Rows, made.Columns = values.shape
    made.BitsAllocated = values.dtype.itemsize * 8
    keyword, vr = ("FloatPixelData", "OF") if values.dtype.itemsize == 4 else ("DoubleFloatPixelData", "OD")
    made.add_new(keyword, vr, values.tobytes())
    return written(made)


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian, *, bare: bool = False) -> bytes:
    """Write a data set as a DICOM file; `bare` leaves out the preamble and the file meta group."""
    file = io.BytesIO()
    if bare:
        made.save_as(
            file,
            enforce_file_format=False,
            implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian,
        )
        return file.getvalue()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def film(
    stored: NDArray[Any] | None = None, *, syntax: str = ExplicitVRLittleEndian, bits: int = 12, **tags: Any
) -> bytes:
    """Build and write a grey film."""
    return written(dataset(stored, bits=bits, **tags), syntax)


def compressed(made: Dataset, syntax: str) -> bytes:
    """Write a data set compressed by pydicom (RLE, JPEG-LS) or by Pillow (JPEG, JPEG 2000)."""
    if syntax in (JPEGBaseline8Bit, JPEG2000Lossless):
        stored = np.frombuffer(made.PixelData, f"u{made.BitsAllocated // 8}").reshape(made.Rows, made.Columns)
        codestream = (
            saved(stored, "JPEG", quality=100) if syntax == JPEGBaseline8Bit else saved(stored, "JPEG2000", no_jp2=True)
        )
        return wrapped(made, codestream, syntax)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


def wrapped(made: Dataset, codestream: bytes, syntax: str) -> bytes:
    """Put a codestream in the place of a data set's pixels."""
    made.PixelData = encapsulate([codestream])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return written(made, syntax)
