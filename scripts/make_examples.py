"""Make the synthetic example films, committed beside the page.

Each is a random point of a principal-component model of one class's training films: it looks like a chest film and is
nobody's. A drawing that admission will refuse goes with them.

    python scripts/make_examples.py [--data ../shared/data/chest_xray/train] [--out pneumonet/web/examples]
"""

import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.taxonomy import BACTERIAL, DISPLAY_NAMES, NORMAL, VIRAL
from pneumonet.training.films import FilmSet, label_of, split_films

FILMS_A_CLASS = 500
COMPONENTS = 120
SIDE = 512
SEED = 2026
# A draw of full spread lands on odd films now and then; a little nearer to the mean they look like any day's.
SPREAD = 0.75
_EXAMPLES = ((NORMAL, 1), (BACTERIAL, 1), (VIRAL, 1))


def synthetic_films(films: NDArray[np.floating], count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw random points of a principal-component model of films.

    Args:
        films: (N, H, W) in [0, 1].
        count: How many to draw.
        rng: Source of the draws.

    Returns:
        (count, H, W) uint8.
    """
    flat = films.reshape(len(films), -1)
    mean = flat.mean(axis=0)
    _, singular, rows = np.linalg.svd(flat - mean, full_matrices=False)
    deviations = singular[:COMPONENTS] / np.sqrt(len(films) - 1)
    scores = rng.normal(size=(count, COMPONENTS)) * deviations * SPREAD
    drawn = mean + scores @ rows[:COMPONENTS]
    pixels: NDArray[np.uint8] = np.clip(drawn * 255 + 0.5, 0, 255).astype(np.uint8).reshape(count, *films.shape[1:])
    return pixels


def drawing() -> Image.Image:
    """Draw a page with a chart: a picture that is no chest film."""
    page = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(page)
    draw.text((40, 30), "A chart, not a chest X-ray", fill="black")
    for i, height in enumerate((90, 210, 150, 300, 250)):
        draw.rectangle((70 + i * 78, 440 - height, 120 + i * 78, 440), fill=(30, 100, 180))
    draw.line((50, 440, 470, 440), fill="black", width=3)
    return page


def main() -> None:
    """Write the examples and their list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument("--out", type=Path, default=Path("pneumonet/web/examples"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    training, _ = split_films(arguments.data, held_back_fold=0)
    listed = []
    for label, count in _EXAMPLES:
        of_class = [film for film in training if label_of(film) == label]
        chosen = sorted(random.Random(SEED).sample(of_class, FILMS_A_CLASS))
        pixels = FilmSet.read(chosen).pixels[:, 0].numpy().astype(np.float32) / 255
        for i, film in enumerate(synthetic_films(pixels, count, np.random.default_rng(SEED))):
            name = f"synthetic_{label.split('_')[0].lower()}_{i + 1}.png"
            large = Image.fromarray(film).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(arguments.out / name, optimize=True)
            title = f"Synthetic: {DISPLAY_NAMES[label].lower()}"
            note = f"A random point of a model of {FILMS_A_CLASS} such films; it is nobody's."
            listed.append({"file": name, "title": title, "note": note})
    drawing().save(arguments.out / "not_a_film.png", optimize=True)
    listed.append(
        {"file": "not_a_film.png", "title": "A chart: will be refused", "note": "What happens to other pictures."}
    )
    (arguments.out / "examples.json").write_text(json.dumps(listed, indent=2) + "\n")
    print(f"{len(listed)} examples in {arguments.out}")


if __name__ == "__main__":
    main()
