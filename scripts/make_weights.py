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
_FULL: Final = ["--sizes", "0:192", "--learning-rate", "7e-4", "--warmup-epochs", "0.3"]
_LAST: Final = ["--sizes", "0:192", "--epochs", "1", "--warmup-epochs", "0.1", "--mixup", "0", "--ema-decay", "0.98",
                "--seed", "6"]  # fmt: skip
_PLAIN: Final = ["--sizes", "0:192", "--epochs", "3", "--warmup-epochs", "0.2", "--mixup", "0", "--ema-decay", "0.99"]
_ARCHS: Final = {"convnext_tiny": "convnext_tiny", "efficientnetv2_s": "tf_efficientnetv2_s"}


def stages(runs: Path, data: Path, version: str, cores: int) -> list[Stage]:
    """Return the commands, without the interpreter: each stage needs the one before, its own go side by side.

    Args:
        runs: Folder of the runs.
        data: Folder of `chest_xray/`, `adult_cxr/`, `originals/` and `not_chest_xray/`.
        version: Version of the weights.
        cores: CPU cores to deal among a stage's runs.
    """
    films = data / "chest_xray" / "train"
    training = _training(runs, films, cores)
    averaged = str(runs / "efficientnetv2_s_averaged")
    average = ["scripts/average_runs.py", *(str(runs / f"efficientnetv2_s_{end}") for end in ("last", "plain")),
               "--out", averaged]  # fmt: skip
    measuring = _measuring(runs, data, films)
    card = ["scripts/write_card.py", "--data", str(films), "--calibration", str(runs / "calibration.json")]
    for option, command in measuring.items():
        card += [f"--{option}", command[-1]]
    for command in (command for stage in training for command in stage):
        folder, threads = (command[command.index(option) + 1] for option in ("--out", "--threads"))
        card += ["--run", f"{folder}={threads}"]
    calibrate = [
        "scripts/calibrate.py",
        str(runs / "convnext_tiny_plain"),
        averaged,
        "--version",
        version,
        "--data",
        str(films),
    ]
    # Both precisions that OpenVINO is chosen with by itself somewhere; the one that this CPU lacks is emulated, slowly.
    compare = ["scripts/compare_engines.py", "--data", str(films), "--precision", "float32", "--precision", "bfloat16",
               "--json", str(runs / "engines.json")]  # fmt: skip
    measured = [[command] for command in measuring.values()]
    return [*training, [average], [calibrate], [compare], *measured, [card]]


def _training(runs: Path, films: Path, cores: int) -> list[Stage]:
    """Return the runs: teachers, then both students small, at the size that is served, and at last without mixup."""
    half = max(1, cores // 2)

    def train(arch: str, name: str, threads: int, *options: str) -> list[str]:
        return ["scripts/train.py", arch, *options, "--threads", str(threads), "--data", str(films),
                "--out", str(runs / name)]  # fmt: skip

    teachers = [
        train("tf_efficientnet_lite0", f"teacher_plain_{seed}", half, "--init", "package", "--precision", "float32",
              "--sizes", "0:192", "--epochs", "5", "--learning-rate", "5e-4", "--ema-decay", "0.99", "--mixup", "0",
              "--seed", seed)
        for seed in ("0", "1")
    ]  # fmt: skip
    one = ["--teacher", teachers[1][-1]]
    both = [*one, "--teacher", teachers[0][-1]]

    def students(end: str, before: str | None, taught: list[str], **each: tuple[str, str]) -> Stage:
        """Return both students' runs: `each` has an option's value for ConvNeXt and for EfficientNet."""
        return [
            train(arch, f"{name}{end}", half, *([] if before is None else ["--init", str(runs / f"{name}{before}")]),
                  *taught, *(word for option, values in each.items()
                             for word in (f"--{option.replace('_', '-')}", values[i])))
            for i, (name, arch) in enumerate(_ARCHS.items())
        ]  # fmt: skip

    return [
        teachers,
        students("_small", None, [*one, "--sizes", "0:96", "4:128", "--epochs", "13"]),
        students("", "_small", [*one, *_FULL], epochs=("10", "9"), seed=("4", "5")),
        students("_last", "", [*one, *_LAST], learning_rate=("3e-4", "2e-4")),
        students("_plain", "_last", [*both, *_PLAIN], learning_rate=("3e-4", "2.5e-4"), seed=("12", "11")),
    ]


def _measuring(runs: Path, data: Path, films: Path) -> dict[str, list[str]]:
    """Return what measures the weights, by the card's option; each command ends in the file that it writes."""
    measuring = {
        "metrics": ["scripts/evaluate.py", str(films), "--held-back"],
        "adult": ["scripts/evaluate.py", str(data / "adult_cxr")],
        "original-size-parity": ["scripts/evaluate.py", str(data / "originals"), "--parity-with", str(films)],
        "admission": ["scripts/measure_admission.py", "--data", str(films), "--adult", str(data / "adult_cxr"),
                      "--strangers", str(data / "not_chest_xray" / "blood_smear")],
        "saliency": ["scripts/measure_saliency.py", "--data", str(films)],
    }  # fmt: skip
    names = {"metrics": "held_back", "original-size-parity": "parity"}
    return {
        option: [*command, "--json", str(runs / f"{names.get(option, option)}.json")]
        for option, command in measuring.items()
    }


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
