"""Pictures that are no frontal chest film, or one that nobody should be answered about, made by code.

The set is for measuring admission: what `scripts/calibrate.py` learns from is made elsewhere.
Photographs come with PyPI packages that tests use; the rest is drawn, or made of real films by what goes wrong with
them.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
_SIDE: Final = 320

# Packages and the folder of each that holds photographs; those that are not installed are left out.
_PHOTOGRAPHS: Final = {
    "skimage.data": ("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png",
                     "coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
                     "moon.png", "retina.jpg", "rocket.jpg"),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
    "matplotlib.mpl-data.sample_data": ("grace_hopper.jpg",),
    "gradio.media_assets.images": ("cheetah.jpg", "cheetah1.jpg", "groot.jpeg", "lion.jpg", "tower.jpg"),
}  # fmt: skip


def drawn(count: int, seed: int) -> Iterator[tuple[str, Picture]]:
    """Yield `count` pictures, (H, W) uint8, of each kind that is drawn, with the kind's name."""
    rng = np.random.default_rng(seed)
    for kind, draw in _DRAWN.items():
        for _ in range(count):
            yield kind, draw(rng)


def photographs(count: int, seed: int) -> Iterator[tuple[str, Picture]]:
    """Yield each photograph whole, grey and in colour (H, W, 3), and `count` grey crops of each."""
    rng = np.random.default_rng(seed)
    for path in _photograph_paths():
        colour = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
        yield "photograph in colour", np.asarray(colour, dtype=np.uint8)
        yield "photograph in grey", np.asarray(grey, dtype=np.uint8)
        for _ in range(count):
            yield "photograph in grey, cropped", _crop(grey, rng)


def spoilt(films: Sequence[Picture], seed: int) -> Iterator[tuple[str, Picture]]:
    """Yield each real film (H, W) uint8 spoilt in every way, with the way's name."""
    rng = np.random.default_rng(seed)
    for film in films:
        for kind, spoil in _SPOILT.items():
            yield kind, np.ascontiguousarray(spoil(film, rng))


def _photograph_paths() -> list[Path]:
    paths = []
    for package, names in _PHOTOGRAPHS.items():
        module, *below = package.split(".", 1) if "-" in package else (package,)
        try:
            folder = resources.files(module)
        except ModuleNotFoundError:
            continue
        for part in below[0].split(".") if below else []:
            folder = folder / part
        paths += [Path(str(folder / name)) for name in names]
    return [path for path in paths if path.is_file()]


def _crop(picture: Picture, rng: np.random.Generator) -> Picture:
    height, width = picture.shape
    side = int(rng.uniform(0.4, 0.8) * min(height, width))
    y, x = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    return picture[y : y + side, x : x + side]


def _noise(power: float) -> Callable[[np.random.Generator], Picture]:
    """Noise whose amplitude falls with frequency by a power: 0 white, 1 pink, 2 like clouds."""

    def draw(rng: np.random.Generator) -> Picture:
        frequency = np.hypot(np.fft.fftfreq(_SIDE)[:, None], np.fft.fftfreq(_SIDE)[None])
        frequency[0, 0] = 1
        values = np.fft.ifft2(np.fft.fft2(rng.normal(size=(_SIDE, _SIDE))) / frequency**power).real
        return _stretched(values)

    return draw


def _stretched(values: NDArray[np.floating]) -> Picture:
    low, high = np.percentile(values, [0.5, 99.5])
    return np.asarray(np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255, dtype=np.uint8)


def _gradient(rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[0 : 1 : _SIDE * 1j, 0 : 1 : _SIDE * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    straight, round_ = x * np.cos(angle) + y * np.sin(angle), np.hypot(x - rng.random(), y - rng.random())
    return _stretched(round_ if rng.random() < 0.5 else straight)


def _checkerboard(rng: np.random.Generator) -> Picture:
    cell = int(rng.integers(4, 60))
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] // cell
    dark, bright = sorted(rng.choice(256, 2, replace=False))
    return np.asarray(np.where((y + x) % 2, dark, bright), dtype=np.uint8)


def _stripes(rng: np.random.Generator) -> Picture:
    y, x = np.mgrid[0:_SIDE, 0:_SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 80)
    return _stretched(np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period))


def _blank(rng: np.random.Generator) -> Picture:
    level = float(rng.choice([0, 255, rng.uniform(0, 255)]))
    return np.clip(rng.normal(level, rng.uniform(0, 3), (_SIDE, _SIDE)), 0, 255).astype(np.uint8)


def _drawing(rng: np.random.Generator) -> Picture:
    """Shapes, filled or in outline, dark on light or light on dark."""
    ground, ink = (255, 0) if rng.random() < 0.5 else (0, 255)
    picture = np.full((_SIDE, _SIDE), ground, np.uint8)
    for _ in range(int(rng.integers(3, 25))):
        (x, y), (a, b) = rng.integers(0, _SIDE, 2).tolist(), rng.integers(5, 120, 2).tolist()
        grey = ink if rng.random() < 0.5 else int(rng.integers(256))
        thickness = -1 if rng.random() < 0.3 else int(rng.integers(1, 6))
        shape = int(rng.integers(3))
        if shape == 0:
            cv2.ellipse(picture, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, grey, thickness)
        elif shape == 1:
            cv2.rectangle(picture, (x, y), (x + a, y + b), grey, thickness)
        else:
            cv2.line(picture, (x, y), (y, a), grey, max(1, thickness))
    return picture


def _plot(rng: np.random.Generator) -> Picture:
    """Axes with curves or bars, as a chart of a paper has them."""
    picture = np.full((_SIDE, 400), 255, np.uint8)
    cv2.line(picture, (40, 20), (40, 280), 0, 2)
    cv2.line(picture, (40, 280), (380, 280), 0, 2)
    xs = np.arange(40, 380, 4)
    for _ in range(int(rng.integers(1, 5))):
        if rng.random() < 0.5:
            ys = 150 + 100 * np.sin(xs / rng.uniform(15, 90) + rng.uniform(0, 6)) * rng.uniform(0.2, 1)
            cv2.polylines(picture, [np.stack([xs, ys], 1).astype(np.int32)], False, int(rng.integers(160)), 2)
        else:
            for x in xs[::8]:
                top = int(rng.integers(60, 270))
                cv2.rectangle(picture, (int(x), top), (int(x) + 18, 280), int(rng.integers(40, 200)), -1)
    cv2.putText(picture, "Fig. 2: survival", (80, 310), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1)
    return picture


def _page(rng: np.random.Generator) -> Picture:
    picture = np.full((420, _SIDE), int(rng.integers(225, 256)), np.uint8)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz      "))
    for y in range(30, 400, int(rng.integers(14, 26))):
        text = "".join(rng.choice(letters, int(rng.integers(15, 42))))
        cv2.putText(picture, text, (14, y), cv2.FONT_HERSHEY_PLAIN, float(rng.uniform(0.7, 1.1)), 20, 1, cv2.LINE_AA)
    return picture if rng.random() < 0.7 else 255 - picture


def _screenshot(rng: np.random.Generator) -> Picture:
    """Windows with title bars, buttons and lines of text, in a light or a dark theme."""
    picture = np.full((300, 480), int(rng.integers(90, 250)), np.uint8)
    for _ in range(int(rng.integers(1, 4))):
        (x, y), (w, h) = rng.integers(0, 200, 2).tolist(), rng.integers(120, 300, 2).tolist()
        cv2.rectangle(picture, (x, y), (x + w, y + h), int(rng.choice([30, 240, 255])), -1)
        cv2.rectangle(picture, (x, y), (x + w, y + 18), int(rng.integers(60, 180)), -1)
        for line in range(y + 34, y + h, 16):
            cv2.putText(picture, "File  Edit  View", (x + 8, line), cv2.FONT_HERSHEY_PLAIN, 0.8, 128, 1)
    return picture


def _qr_code(rng: np.random.Generator) -> Picture:
    code = cv2.QRCodeEncoder.create().encode("".join(map(str, rng.integers(0, 10, int(rng.integers(10, 90))))))
    return np.asarray(cv2.resize(code, (_SIDE, _SIDE), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def _hand(rng: np.random.Generator) -> Picture:
    """Something like the film of a hand: bright fingers fanned out of a palm on a dark ground."""
    picture = np.full((_SIDE, _SIDE), int(rng.integers(0, 30)), np.uint8)
    turn = float(rng.uniform(-20, 20))
    for finger, angle in enumerate((-48, -22, -4, 14, 32)):
        bearing = np.deg2rad(angle + turn - 90)
        tip = (int(160 + 130 * np.cos(bearing)), int(230 + (130 - 25 * (finger == 0)) * np.sin(bearing)))
        cv2.line(picture, (160, 230), tip, 120, 26)
        cv2.line(picture, (160, 230), tip, 215, 9)
    cv2.ellipse(picture, (160, 245), (58, 52), 0, 0, 360, 140, -1)
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(1, 4))), dtype=np.uint8)


def _blurred(film: Picture, rng: np.random.Generator) -> Picture:
    return np.asarray(cv2.GaussianBlur(film, (0, 0), film.shape[1] * float(rng.uniform(0.06, 0.12))), dtype=np.uint8)


def _blown_up(film: Picture, rng: np.random.Generator) -> Picture:
    small = cv2.resize(film, (32, 32), interpolation=cv2.INTER_AREA)
    way = cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(small, (512, 512), interpolation=way), dtype=np.uint8)


def _corner(film: Picture, rng: np.random.Generator) -> Picture:
    height, width = film.shape
    rows = slice(None, height // 3) if rng.random() < 0.5 else slice(-(height // 3), None)
    columns = slice(None, width // 3) if rng.random() < 0.5 else slice(-(width // 3), None)
    return film[rows, columns]


_DRAWN: Final[dict[str, Callable[[np.random.Generator], Picture]]] = {
    "white noise": _noise(0),
    "pink noise": _noise(1),
    "clouds": _noise(2),
    "gradient": _gradient,
    "checkerboard": _checkerboard,
    "stripes": _stripes,
    "blank frame": _blank,
    "drawing": _drawing,
    "plot": _plot,
    "text page": _page,
    "screenshot": _screenshot,
    "QR code": _qr_code,
    "hand": _hand,
}
_SPOILT: Final[dict[str, Callable[[Picture, np.random.Generator], Picture]]] = {
    "film upside down": lambda film, rng: film[::-1, ::-1],
    "film mirrored top to bottom": lambda film, rng: film[::-1],
    "film on its left side": lambda film, rng: np.rot90(film, 1),
    "film on its right side": lambda film, rng: np.rot90(film, -1),
    "film inverted": lambda film, rng: 255 - film,
    "film cut to a corner": _corner,
    "film pasted twice": lambda film, rng: np.hstack([film, film]),
    "film pasted twice, one below the other": lambda film, rng: np.vstack([film, film]),
    "film blurred beyond use": _blurred,
    "film of 32 x 32 blown up": _blown_up,
}
