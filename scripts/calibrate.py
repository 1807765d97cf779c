"""Make a snapshot of two finished runs: export them, fit temperatures, prediction sets and admission.

    python scripts/calibrate.py runs/convnext_tiny runs/efficientnetv2_s --version 0.1.0

Temperatures and thresholds come from the held-back fold; distances are measured from the films trained on. The
figures go to calibration.json beside the runs, for scripts/write_card.py.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pneumonet.settings import DEFAULT_SNAPSHOT
from pneumonet.snapshot import InputConfig, MemberConfig
from pneumonet.training.calibrate import calibrate
from pneumonet.training.export import export_member
from pneumonet.training.films import split_films
from pneumonet.training.run_folder import load_averaged

# The customer's weights. Target layers: the last feature map of each, what its pooling sees.
_CONVNEXT = MemberConfig("convnext_tiny", "ConvNeXt-Tiny", "convnext_tiny", 0.4, 1.0, "stages.3")
_EFFICIENTNET = MemberConfig("efficientnetv2_s", "EfficientNetV2-S", "tf_efficientnetv2_s", 0.6, 1.0, "bn2")


def main() -> None:
    """Export and calibrate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("convnext", type=Path, help="folder of the ConvNeXt-Tiny run")
    parser.add_argument("efficientnet", type=Path, help="folder of the EfficientNetV2-S run")
    parser.add_argument("--version", required=True, help="version of the weights")
    parser.add_argument("--out", type=Path, default=DEFAULT_SNAPSHOT)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/chest_xray/train"))
    arguments = parser.parse_args()

    members = (_CONVNEXT, _EFFICIENTNET)
    models, recipes = zip(*map(load_averaged, (arguments.convnext, arguments.efficientnet)), strict=True)
    for member, recipe in zip(members, recipes, strict=True):
        if recipe["arch"] != member.architecture:
            parser.error(f"expected a run of {member.architecture}, got one of {recipe['arch']}")
    fold, size = recipes[0]["held_back_fold"], recipes[0]["sizes"][-1][1]
    if any(recipe["held_back_fold"] != fold for recipe in recipes):
        parser.error("expected runs that held back the same fold: one would be calibrated on films it was trained on")
    if any(recipe["sizes"][-1][1] != size for recipe in recipes):
        parser.error("expected runs that end at the same size, the one that is served")
    input_config = InputConfig(size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    for member, model in zip(members, models, strict=True):
        export_member(model, member.architecture, input_config, arguments.out / member.name)
    training, held_back = split_films(arguments.data, fold)
    config, figures = calibrate(
        arguments.out,
        members,
        input_config,
        training,
        held_back,
        held_back_fold=fold,
        version=arguments.version,
    )
    figures["model"] = {"revision": f"local-{config.fingerprint}", "version": config.version}
    (arguments.convnext.parent / "calibration.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    print(f"snapshot {config.version}, fingerprint {config.fingerprint}, in {arguments.out}")


if __name__ == "__main__":
    main()
