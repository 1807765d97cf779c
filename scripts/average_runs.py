"""Average the weights of two runs of one lineage, for scripts/calibrate.py.

    python scripts/average_runs.py runs/convnext_tiny_last runs/convnext_tiny_plain --out runs/convnext_tiny_averaged

A run that went on from another lies in the same valley, and the mean of both answers films as well as either (Izmailov
et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018). Either may be a member of a
snapshot.
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.training.run_folder import CHECKPOINT, RECIPE, load_start


def averaged(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the mean of two models' tensors; whole numbers, counts of batches, are the second's.

    Raises:
        ValueError: If they are not of one architecture.
    """
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        raise ValueError("expected two runs of one architecture")
    return {
        name: (first[name] + tensor) / 2 if tensor.is_floating_point() else tensor for name, tensor in second.items()
    }


def main() -> None:
    """Average and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="folder of a run, or of a snapshot's member")
    parser.add_argument("second", type=Path, help="folder of the run that went on from it")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    (first, _, _), (second, _, _) = load_start(arguments.first), load_start(arguments.second)
    arguments.out.mkdir(parents=True, exist_ok=True)
    recipe = json.loads((arguments.second / RECIPE).read_text()) | {"init": str(arguments.second)}
    (arguments.out / RECIPE).write_text(json.dumps(recipe, indent=2) + "\n")
    torch.save({"ema": averaged(first.state_dict(), second.state_dict())}, arguments.out / CHECKPOINT)


if __name__ == "__main__":
    main()
