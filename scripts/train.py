"""Train one backbone on the paediatric films, from labels alone or distilled from teachers.

    python scripts/train.py tf_efficientnet_lite0 --init package --sizes 0:192 --epochs 5 --out runs/teacher
    python scripts/train.py convnext_tiny --teacher runs/teacher --sizes 0:96 4:128 --out runs/convnext_tiny

Started again with the same arguments, it goes on after the last whole epoch.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.training.backbones import INITS
from pneumonet.training.films import FilmSet, split_films
from pneumonet.training.recipe import Recipe
from pneumonet.training.run import Run


def _size(text: str) -> tuple[int, int]:
    epoch, side = text.split(":")
    return int(epoch), int(side)


def _parser() -> argparse.ArgumentParser:
    default = Recipe(arch="")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arch", help="timm architecture: convnext_tiny, tf_efficientnetv2_s, or a teacher's")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run, ignored by git")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument(
        "--init",
        default=default.init,
        help=f"{', '.join(INITS)}, or a folder to go on from: a run's or a snapshot's member's",
    )
    parser.add_argument("--teacher", action="append", default=[], help="folder of a finished run; may be repeated")
    parser.add_argument("--sizes", type=_size, nargs="+", default=list(default.sizes), metavar="EPOCH:PIXELS")
    parser.add_argument("--precision", choices=["bfloat16", "float32"], default=default.precision)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name in ("epochs", "batch_size", "held_back_fold", "seed"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=getattr(default, name))
    for name in (
        "learning_rate", "weight_decay", "warmup_epochs", "mixup", "label_smoothing", "label_share",
        "feature_weight", "drop_path", "ema_decay",
    ):  # fmt: skip
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=getattr(default, name))
    return parser


def main() -> None:
    """Parse the arguments and run."""
    arguments = vars(_parser().parse_args())
    out, data, device = arguments.pop("out"), arguments.pop("data"), torch.device(arguments.pop("device"))
    threads = arguments.pop("threads")
    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe(teachers=tuple(arguments.pop("teacher")), sizes=tuple(arguments.pop("sizes")), **arguments)
    training, held_back = split_films(data, recipe.held_back_fold)
    print(f"{len(training)} films to train on, {len(held_back)} held back")
    Run(recipe, out, device).fit(FilmSet.read(training), FilmSet.read(held_back))


if __name__ == "__main__":
    main()
