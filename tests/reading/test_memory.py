"""What reading one film takes of memory: the limit on pixels is a limit on bytes, whatever the format."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.web.conftest import dicom

SIDE = 3000
# Of a film of 16 bits in colour: as stored, in float, and one more of each while it is turned into tones. What a
# decoder of C allocates counts too, so the process is asked and not Python.
MOST_BYTES_A_PIXEL = 48
_CHILD = """
import sys
from pathlib import Path
from pneumonet.reading import ReadingLimits, read_radiograph

def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

small, film = (Path(path).read_bytes() for path in sys.argv[1:])
read_radiograph(small)
# The most that was ever held begins anew; a process takes over its parent's.
Path("/proc/self/clear_refs").write_text("5")
before = peak()
shape = read_radiograph(film, limits=ReadingLimits(max_bytes=10**9)).pixels.shape
print(shape[0] * shape[1], peak() - before)
"""


def _picture(side: int, kind: str, mode: str) -> bytes:
    rng = np.random.default_rng(0)
    shape = (side, side, 3) if mode == "RGB" else (side, side)
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    picture = Image.fromarray(values) if mode != "I;16" else Image.fromarray(values.astype(np.uint16) * 257)
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def _dicom(side: int) -> bytes:
    return dicom(np.random.default_rng(0).integers(0, 4096, (side, side), dtype=np.uint16))


FILMS: dict[str, Callable[[int], bytes]] = {
    "JPEG in grey": lambda side: _picture(side, "JPEG", "L"),
    "JPEG in colour": lambda side: _picture(side, "JPEG", "RGB"),
    "PNG": lambda side: _picture(side, "PNG", "RGB"),
    "PNG of 16 bits": lambda side: _picture(side, "PNG", "I;16"),
    "TIFF": lambda side: _picture(side, "TIFF", "RGB"),
    "WebP": lambda side: _picture(side, "WEBP", "RGB"),
    "BMP": lambda side: _picture(side, "BMP", "RGB"),
    "GIF": lambda side: _picture(side, "GIF", "L"),
    "DICOM": _dicom,
}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a process held at most")
@pytest.mark.parametrize("kind", FILMS)
def test_a_film_takes_so_many_bytes_a_pixel_at_most(kind: str, tmp_path: Path) -> None:
    paths = [tmp_path / "small", tmp_path / "film"]
    for path, side in zip(paths, (64, SIDE), strict=True):
        path.write_bytes(FILMS[kind](side))
    command = [sys.executable, "-c", _CHILD, *map(str, paths)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.split()
    pixels, taken = map(int, told)
    assert pixels == SIDE * SIDE
    # The film itself, four bytes a pixel, is left of it.
    print(kind, taken / pixels)
    assert 4 * pixels <= taken <= MOST_BYTES_A_PIXEL * pixels
