"""Inference engines: what runs the backbones, from a batch to each one's last feature map.

The heads, the probabilities and the saliency maps that follow are numpy, the same under every engine.
"""

import ctypes
import importlib.util
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pneumonet.errors import ConfigError
from pneumonet.heads import Head
from pneumonet.snapshot import SnapshotConfig


class Engine(Protocol):
    """Runs every backbone of a snapshot. Safe to share between threads.

    Attributes:
        name: torch or openvino.
        device: Where it runs, such as cpu or cuda.
        precision: Of the backbones' arithmetic: float32 or bfloat16.
        heads: Each member's head, by its name.
    """

    name: str
    device: str
    precision: str
    heads: Mapping[str, Head]

    def features(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return each member's last feature map (N, C, h, w), by its name, of a batch (N, 3, S, S) from `to_batch`."""
        ...


def open_engine(name: str, device: str, snapshot_path: Path, config: SnapshotConfig, cache_dir: Path) -> Engine:
    """Load the backbones of a snapshot into an engine.

    Args:
        name: `torch`, the reference; `openvino`, on a CPU alone; `auto`, OpenVINO on a CPU and torch elsewhere.
        device: auto (an accelerator where there is one), cpu, cuda or mps.
        snapshot_path: The snapshot's folder, its files already verified.
        config: The snapshot's config.
        cache_dir: Where an engine keeps what it converts.

    Raises:
        SnapshotError: If a member's weights do not fit.
        ConfigError: If the engine or the device is not there, or they do not go together.
    """
    if name == "auto":
        on_cpu = device == "cpu" or (device == "auto" and not _has_accelerator())
        name = "openvino" if on_cpu and importlib.util.find_spec("openvino") else "torch"
    if name == "openvino":
        if device not in ("auto", "cpu"):
            raise ConfigError(f"The engine openvino runs on a CPU, got the device {device}.")
        from pneumonet.engines.openvino import OpenVinoEngine

        return OpenVinoEngine.open(snapshot_path, config, cache_dir)
    from pneumonet.engines.torch import TorchEngine

    return TorchEngine.open(snapshot_path, config, device)


def _has_accelerator() -> bool:
    """Whether torch finds an accelerator: a driver may lie there without a device, or beside torch's CPU wheels."""
    if not _may_have_accelerator():
        return False
    from pneumonet.engines.torch import has_accelerator

    return has_accelerator()


def _may_have_accelerator() -> bool:
    """Whether torch may find an accelerator; asking torch itself would load it, seconds and hundreds of megabytes."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True
