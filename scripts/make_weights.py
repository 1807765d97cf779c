"""From the films to the committed weights and their card: every step, in order.

    python scripts/make_weights.py --version 1.0.0          # hours on two cores
    python scripts/make_weights.py --version 1.0.0 --list   # the commands alone

Started again, it goes on after the last whole epoch of each run. Runs that do not wait for one another go side by side,
the CPU's cores dealt among them, which loses nothing; on a GPU they go one after the other. What is seen on the new
weights' surest failures is then to be described by hand, in pneumonet/training/film_words.json.
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
_FULL: Final = ["--sizes", "0:192", "--learning-rate", "5e-4", "--warmup-epochs", "0.2", "--ema-decay", "0.99",
                "--seed", "3"]  # fmt: skip


def stages(runs: Path, data: Path, version: str, cores: int) -> list[Stage]:
    """Return the commands, without the interpreter: each stage needs the one before, its own go side by side.

    Args:
        runs: Folder of the runs.
        data: Folder of `chest_xray/`, `adult_cxr/` and `originals/`.
        version: Version of the weights.
        cores: CPU cores to deal among a stage's runs.
    """
    half = max(1, cores // 2)
    films = data / "chest_xray" / "train"

    def train(arch: str, name: str, threads: int, *options: str) -> list[str]:
        places = ["--data", str(films), "--out", str(runs / name)]
        return ["scripts/train.py", arch, *options, "--threads", str(threads), *places]

    def evaluate(folder: Path, name: str, *options: str) -> list[str]:
        return ["scripts/evaluate.py", str(folder), *options, "--json", str(runs / f"{name}.json")]

    teacher = train("tf_efficientnet_lite0", "teacher_lite0", cores, "--init", "package", "--precision", "float32",
                    "--sizes", "0:192", "--epochs", "5", "--learning-rate", "5e-4", "--ema-decay", "0.99")  # fmt: skip
    taught = ["--teacher", teacher[-1]]
    small = [
        train("convnext_tiny", "convnext_tiny_small", half, *taught, "--sizes", "0:96", "4:128", "--epochs", "13"),
        train(
            "tf_efficientnetv2_s", "efficientnetv2_s_small", half, *taught, "--sizes", "0:96", "4:128", "--epochs", "13"
        ),
    ]
    full = [
        train("convnext_tiny", "convnext_tiny", half, "--init", small[0][-1], *taught, *_FULL, "--epochs", "2"),
        train(
            "tf_efficientnetv2_s", "efficientnetv2_s", half, "--init", small[1][-1], *taught, *_FULL, "--epochs", "3"
        ),
    ]
    students = [command[-1] for command in full]
    card = ["scripts/write_card.py", "--data", str(films)]
    for option, name in (("metrics", "held_back"), ("adult", "adult"), ("original-size-parity", "parity"),
                         ("calibration", "calibration")):  # fmt: skip
        card += [f"--{option}", str(runs / f"{name}.json")]
    for command in (teacher, *small, *full):
        threads = command[command.index("--threads") + 1]
        card += ["--run", f"{command[-1]}={threads}"]
    return [
        [teacher],
        small,
        full,
        [["scripts/calibrate.py", *students, "--version", version, "--data", str(films)]],
        [evaluate(films, "held_back", "--held-back")],
        [evaluate(data / "adult_cxr", "adult")],
        [evaluate(data / "originals", "parity", "--parity-with", str(films))],
        [card],
    ]


def run(stage: Stage, side_by_side: bool) -> None:
    """Run a stage's commands.

    Raises:
        SystemExit: If one fails, after the others have ended.
    """
    width = len(stage) if side_by_side else 1
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
    for stage in stages(arguments.runs, arguments.data, arguments.version, cores=os.cpu_count() or 1):
        for command in stage:
            print(shlex.join(["python", *command]), flush=True)
        if not arguments.list:
            run(stage, side_by_side=on_cpu)


if __name__ == "__main__":
    main()
