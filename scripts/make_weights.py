"""From the films to the committed weights and their card: every step, in order, each resumable.

    python scripts/make_weights.py --version 0.2.0          # hours on two cores; started again, it goes on
    python scripts/make_weights.py --version 0.2.0 --list   # the commands alone

Runs that do not wait for one another go side by side with one thread each, which loses nothing on two cores; on a GPU
they go one after the other.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import torch

Stage = list[list[str]]
_TEACHER: Final = ["--init", "package", "--precision", "float32", "--epochs", "5", "--learning-rate", "5e-4",
                   "--ema-decay", "0.99"]  # fmt: skip
_SECOND: Final = ["--sizes", "0:128", "--learning-rate", "7e-4", "--warmup-epochs", "0.5", "--seed", "2"]


def stages(runs: Path, data: Path, version: str, threads: int) -> list[Stage]:
    """Return the commands, without the interpreter: each stage needs the one before, its own go side by side."""
    films = data / "chest_xray" / "train"

    def train(arch: str, name: str, *options: str) -> list[str]:
        places = ["--data", str(films), "--out", str(runs / name)]
        return ["scripts/train.py", arch, *options, "--threads", str(threads), *places]

    def evaluate(folder: Path, name: str, *options: str) -> list[str]:
        return ["scripts/evaluate.py", str(folder), *options, "--json", str(runs / f"{name}.json")]

    teachers = [
        train("tf_efficientnet_lite2", "teacher_lite2", *_TEACHER, "--sizes", "0:160", "1:192", "3:224",
              "--drop-path", "0.1", "--seed", "1"),
        train("tf_efficientnet_lite0", "teacher_lite0_224", *_TEACHER, "--sizes", "0:160", "1:192", "3:224",
              "--drop-path", "0.1", "--seed", "2"),
        train("tf_efficientnet_lite0", "teacher_lite0", *_TEACHER, "--sizes", "0:192"),
    ]  # fmt: skip
    seen = str(runs / "views")
    views = ["scripts/make_views.py", *(command[-1] for command in teachers), "--rounds", "6", "--size", "160",
             "--data", str(films), "--out", seen]  # fmt: skip
    sizes = ["--views", seen, "--sizes", "0:96", "4:128"]
    first = [
        train("convnext_tiny", "convnext_tiny_first", *sizes, "--epochs", "10"),
        train("tf_efficientnetv2_s", "efficientnetv2_s_first", *sizes, "--epochs", "9"),
    ]
    second = [
        train("convnext_tiny", "convnext_tiny", "--init", first[0][-1], "--views", seen, *_SECOND, "--epochs", "8"),
        train("tf_efficientnetv2_s", "efficientnetv2_s", "--init", first[1][-1], "--views", seen, *_SECOND,
              "--epochs", "12"),
    ]  # fmt: skip
    students = [command[-1] for command in second]
    card = ["scripts/write_card.py", "--data", str(films)]
    for option, name in (("metrics", "held_back"), ("adult", "adult"), ("original-size-parity", "parity"),
                         ("calibration", "calibration")):  # fmt: skip
        card += [f"--{option}", str(runs / f"{name}.json")]
    for command in (*teachers, *first, *second):
        card += ["--run", command[-1]]
    return [
        teachers,
        [views],
        first,
        second,
        [["scripts/calibrate.py", *students, "--version", version, "--data", str(films)]],
        [evaluate(films, "held_back", "--held-back")],
        [evaluate(data / "adult_cxr", "adult")],
        [evaluate(data / "originals", "parity", "--parity-with", str(films))],
        [[*card, "--views", f"{seen}=2"]],
    ]


def run(stage: Stage, side_by_side: bool) -> None:
    """Run a stage's commands.

    Raises:
        SystemExit: If one fails, after the others have ended.
    """
    width = os.cpu_count() or 1 if side_by_side else 1
    for first in range(0, len(stage), width):
        commands = stage[first : first + width]
        started = [subprocess.Popen([sys.executable, *command]) for command in commands]
        failed = [command for command, process in zip(commands, started, strict=True) if process.wait()]
        if failed:
            raise SystemExit("failed: " + "; ".join(map(shlex.join, failed)))


def main() -> None:
    """Run every stage, or list them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", required=True, help="version of the weights")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="chest_xray/, adult_cxr/, originals/")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of checkpoints, ignored by git")
    parser.add_argument("--list", action="store_true", help="print the commands and stop")
    arguments = parser.parse_args()
    on_cpu = not torch.cuda.is_available()
    for stage in stages(arguments.runs, arguments.data, arguments.version, threads=1 if on_cpu else 0):
        for command in stage:
            print(shlex.join(["python", *command]), flush=True)
        if not arguments.list:
            run(stage, side_by_side=on_cpu)


if __name__ == "__main__":
    main()
