"""What reading one film takes of memory: the limit on pixels is a limit on bytes, whatever the format.

What a decoder in C allocates counts too, so a process is asked and not Python.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)

from scripts.fuzz_floods import dicom, jpeg_2000, jpeg_ls, overlapping, tiff
from tests.reading.films import (
    claiming_the_most,
    compressed,
    dataset,
    film,
    phantom,
    png_of_16_bits,
    saved,
    wrapped,
    written,
)

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a process held at most"
)

# Held by SECURITY.md: 40 million pixels take no GiB.
MOST_BYTES_A_PIXEL: Final = 25
SIDE: Final = 1000
_CHILD = """
import json, resource, sys
from pathlib import Path
from pneumonet.errors import PneumoNetError
from pneumonet.reading import read_radiograph

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
for small, film in zip(*[iter(sys.argv[1:])] * 2):
    data = Path(film).read_bytes()
    # Loads the decoder, so that it counts for no film.
    read_radiograph(Path(small).read_bytes())
    # The most that was ever held begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    before, code, pixels = peak(), "read", 0
    try:
        pixels = read_radiograph(data).pixels.size
    except PneumoNetError as error:
        code = error.code
    print(json.dumps([code, pixels, peak() - before]))
"""


@cache
def _grey(side: int) -> NDArray[np.uint8]:
    return phantom(side, side)


def _colour(side: int) -> NDArray[np.uint8]:
    grey = _grey(side)
    return np.stack([grey, grey.T, 255 - grey], axis=-1)


def _picture(kind: str, mode: str, **options: Any) -> Callable[[int], bytes]:
    def made(side: int) -> bytes:
        colour = Image.fromarray(_colour(side))
        if mode in ("RGBA", "LA"):
            colour.putalpha(colour.getchannel("G"))
        if kind == "PNG":
            options["compress_level"] = 1
        return saved(colour.quantize(16) if mode == "P" else colour.convert(mode), kind, **options)

    return made


def _deep(channels: int) -> Callable[[int], bytes]:
    def made(side: int) -> bytes:
        return png_of_16_bits(np.stack([_grey(side).astype(np.uint16) * 100] * channels, axis=-1))

    return made


def _deflated_tiff(values_of: Callable[[NDArray[np.uint8]], NDArray[Any]]) -> Callable[[int], bytes]:
    # Uncompressed it would be ten bytes a pixel by itself, which 40 million in a file of 10 MB cannot be.
    return lambda side: bytes(cv2.imencode(".tiff", values_of(_grey(side)), [259, 8])[1])


def _film(syntax: str, **tags: Any) -> Callable[[int], bytes]:
    def made(side: int) -> bytes:
        whole = dataset(_grey(side).astype(np.uint16) * 16, **tags)
        return written(whole, syntax) if syntax == DeflatedExplicitVRLittleEndian else compressed(whole, syntax)

    return made


def _colour_film(syntax: str, photometric: str) -> Callable[[int], bytes]:
    def made(side: int) -> bytes:
        tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric, "PlanarConfiguration": 0}
        whole = dataset(_colour(side), bits=8, **tags)
        if syntax == DeflatedExplicitVRLittleEndian:
            return written(whole, syntax)
        options = {"no_jp2": True} if syntax == JPEG2000Lossless else {}
        kind = "JPEG2000" if options else "JPEG"
        return wrapped(whole, saved(_colour(side), kind, **options), syntax)

    return made


def _palette_film(side: int) -> bytes:
    palettes: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for channel in ("Red", "Green", "Blue"):
        palettes[f"{channel}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palettes[f"{channel}PaletteColorLookupTableData"] = (np.arange(256) * 257).astype(np.uint16).tobytes()
    return compressed(dataset(_grey(side), bits=8, **palettes), JPEGLSLossless)


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


_WINDOW: Final = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 2, "RescaleIntercept": -9}
FILMS: Final[dict[str, Callable[[int], bytes]]] = {
    "JPEG in grey": _picture("JPEG", "L"),
    "JPEG in four colours, progressive and turned": _picture(
        "JPEG", "CMYK", progressive=True, subsampling=0, exif=_turned()
    ),
    "PNG of one bit": _picture("PNG", "1"),
    "PNG with alpha, turned": _picture("PNG", "RGBA", exif=_turned()),
    "PNG in grey with alpha": _picture("PNG", "LA"),
    "PNG of a palette with alpha": _picture("PNG", "P", transparency=bytes(range(16))),
    "PNG of 16 bits": _deep(1),
    "PNG of 16 bits with alpha": _deep(2),
    "PNG of 16 bits in colour": _deep(3),
    "PNG of 16 bits in colour with alpha": _deep(4),
    "TIFF": _picture("TIFF", "RGB", compression="tiff_lzw"),
    "TIFF in LAB": _picture("TIFF", "LAB", compression="tiff_adobe_deflate"),
    "TIFF of 16 bits in colour": _deflated_tiff(lambda grey: np.stack([grey.astype(np.uint16) * 99] * 3, axis=-1)),
    "TIFF of 32 bits": _deflated_tiff(lambda grey: grey.astype(np.int32) * 9999),
    "TIFF of floats": _deflated_tiff(lambda grey: grey.astype(np.float32) * 9999),
    "WebP": _picture("WEBP", "RGBA", method=0, quality=0),
    "BMP": _picture("BMP", "RGB"),
    "GIF": _picture("GIF", "P", transparency=1),
    "DICOM": lambda side: film(_grey(side).astype(np.uint16) * 16, PhotometricInterpretation="MONOCHROME1", **_WINDOW),
    "DICOM, JPEG-LS, sigmoid over padding": _film(
        JPEGLSLossless, VOILUTFunction="SIGMOID", PixelPaddingValue=0, **_WINDOW
    ),
    "DICOM of a palette": _palette_film,
    "DICOM, JPEG in YBR": _colour_film(JPEGBaseline8Bit, "YBR_FULL_422"),
    "DICOM, JPEG 2000": _film(JPEG2000Lossless, **_WINDOW),
    "DICOM, JPEG 2000 in colour": _colour_film(JPEG2000Lossless, "RGB"),
    "DICOM, deflated": _film(DeflatedExplicitVRLittleEndian, **_WINDOW),
    "DICOM, deflated in YBR": _colour_film(DeflatedExplicitVRLittleEndian, "YBR_FULL"),
}
CLAIMS: Final = ("PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG", "DICOM")
FLOODS: Final = {
    "JPEG-LS channels": dicom(JPEGLSLossless, [jpeg_ls(55, 6_000)], Rows=6_000, Columns=6_000),
    "JPEG 2000 channels": dicom(JPEG2000Lossless, [jpeg_2000(channels=60, side=6_000)], Rows=6_000, Columns=6_000),
    "JPEG 2000 precincts": dicom(JPEG2000Lossless, [jpeg_2000(precinct=0, side=1_500)], Rows=1_500, Columns=1_500),
    "EXIF": saved(phantom(), "PNG", exif=b"Exif\0\0" + overlapping(300, 5_000_000)),
    "TIFF": tiff([(40_000 + tag, 7, 5_000_000, 0) for tag in range(300)], 5_000_000),
}


def _measured(files: dict[str, tuple[bytes, bytes]], folder: Path) -> dict[str, tuple[str, int, int]]:
    """Have another process read each file after a small one of its kind.

    Returns:
        By name "read" or the error's code, how many pixels were read, and what the process held at most beside what it
        held before, in bytes.
    """
    paths = [folder / f"{number}" for number in range(2 * len(files))]
    for path, data in zip(paths, (data for pair in files.values() for data in pair), strict=True):
        path.write_bytes(data)
    # Else what one film has freed is kept for the next, which would seem to take less.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", _CHILD, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment).stdout
    return {name: tuple(json.loads(line)) for name, line in zip(files, io.StringIO(lines), strict=True)}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int, int]]:
    small = saved(phantom(), "PNG")
    files = {name: (make(64), make(SIDE)) for name, make in FILMS.items()}
    files |= {f"claim of {name}": (film() if name == "DICOM" else small, claiming_the_most(name)) for name in CLAIMS}
    files |= {f"flood of {name}": (small, flood) for name, flood in FLOODS.items()}
    return _measured(files, tmp_path_factory.mktemp("films"))


@pytest.mark.parametrize("name", FILMS)
def test_a_film_takes_so_many_bytes_a_pixel_at_most(taken: dict[str, tuple[str, int, int]], name: str) -> None:
    code, pixels, most = taken[name]
    assert code == "read"
    assert pixels == SIDE * SIDE
    # The film itself, four bytes a pixel, is left of it.
    assert 4 * pixels <= most <= MOST_BYTES_A_PIXEL * pixels


@pytest.mark.parametrize("name", CLAIMS)
def test_a_small_file_that_claims_the_most_pixels_takes_no_memory(
    taken: dict[str, tuple[str, int, int]], name: str
) -> None:
    code, _, most = taken[f"claim of {name}"]
    assert code == "too_many_pixels"
    assert most < 4_000_000


@pytest.mark.parametrize("name", FLOODS)
def test_a_small_file_takes_no_gigabytes(taken: dict[str, tuple[str, int, int]], name: str) -> None:
    assert taken[f"flood of {name}"][2] < 100_000_000
