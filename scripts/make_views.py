"""Draw a fixed set of augmented views of the training films, and ask the teachers about each.

    python scripts/make_views.py runs/teacher_lite2 runs/teacher_lite0 --rounds 8 --out runs/views

The first teacher gives the feature maps. Started again with the same arguments, it goes on after the last whole round.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.training.films import FilmSet, split_films
from pneumonet.training.teacher import Teacher
from pneumonet.training.views import make_views


def main() -> None:
    """Parse the arguments and make the views."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the views, ignored by git")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    parser.add_argument("--rounds", type=int, default=8, help="views of each film")
    parser.add_argument("--size", type=int, default=160, help="side of the stored views in pixels")
    parser.add_argument("--held-back-fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 leaves it to torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    teachers = [Teacher(folder, torch.device(arguments.device)) for folder in arguments.teachers]
    training, _ = split_films(arguments.data, arguments.held_back_fold)
    make_views(
        arguments.out, FilmSet.read(training), teachers, arguments.rounds, arguments.size, arguments.seed,
        arguments.held_back_fold,
    )  # fmt: skip


if __name__ == "__main__":
    main()
