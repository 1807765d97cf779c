"""`--init timm`: a backbone that starts from timm's ImageNet weights, pulled from a Hub."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save

from tests.hub.server import LocalHub

REPO = "timm/test_convnext.r160_in1k"
BUILD = """
import sys
from safetensors.torch import save_file
from pneumonet.training.backbones import build_backbone
save_file(build_backbone("test_convnext", "timm").state_dict(), sys.argv[1])
"""


def _build(hub: LocalHub, folder: Path) -> subprocess.CompletedProcess[str]:
    # A process of its own: huggingface_hub reads its settings once.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", BUILD, str(folder / "built.safetensors")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_timm_s_weights_fill_every_tensor_but_the_head(hub: LocalHub, tmp_path: Path) -> None:
    torch.manual_seed(7)
    published = {name: torch.rand_like(t) for name, t in timm.create_model("test_convnext").state_dict().items()}
    hub.commit(REPO, {"model.safetensors": save(published)})

    done = _build(hub, tmp_path)

    assert done.returncode == 0, done.stderr
    assert hub.asked("GET", "model.safetensors")
    built = load_file(tmp_path / "built.safetensors")
    assert built.keys() == published.keys()
    for name, tensor in built.items():
        if not name.startswith("head.fc"):
            torch.testing.assert_close(tensor, published[name])
    assert built["head.fc.weight"].shape[0] == 3
    assert built["head.fc.weight"].abs().max() < 0.1


def test_a_hub_without_the_weights_stops_the_run(hub: LocalHub, tmp_path: Path) -> None:
    done = _build(hub, tmp_path)
    assert done.returncode != 0
    assert any(REPO in request.path for request in hub.requests)
    assert not (tmp_path / "built.safetensors").exists()


@pytest.mark.parametrize("arch", ["convnext_tiny", "tf_efficientnetv2_s"])
def test_timm_knows_where_both_backbones_weights_are(arch: str) -> None:
    assert timm.get_pretrained_cfg(arch).hf_hub_id.startswith("timm/")
