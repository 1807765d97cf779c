"""Write the committed split of the training films: each patient's fold, seeded, the classes balanced."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.training.films import SPLIT_FILE, assign_folds, list_films

FOLDS = 8
SEED = 2026


def main() -> None:
    """Write the split of the films in the folder given, or in the shared data."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data/chest_xray/train")
    fold_of = assign_folds(list_films(folder), FOLDS, SEED)
    SPLIT_FILE.write_text(json.dumps({"folds": FOLDS, "seed": SEED, "fold_of_patient": fold_of}, indent=0) + "\n")
    print(f"{len(fold_of)} patients in {FOLDS} folds, in {SPLIT_FILE}")


if __name__ == "__main__":
    main()
