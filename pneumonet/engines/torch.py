"""Eager PyTorch in float32: the reference, and the path to an accelerator."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pneumonet.errors import ConfigError
from pneumonet.heads import Head
from pneumonet.members import Member
from pneumonet.snapshot import SnapshotConfig


class TorchEngine:
    """Runs members one after the other, as timm has them."""

    name = "torch"
    precision = "float32"

    def __init__(self, members: Sequence[Member], device: torch.device | str = "cpu") -> None:
        """Take members that lie on `device`.

        Raises:
            SnapshotError: If a member's head is of another kind than the engines share.
        """
        self.members = tuple(members)
        self.device = str(device)
        # One pass takes every core: two at once would only make both slower.
        self._one_at_a_time = threading.Lock()
        self.heads: Mapping[str, Head] = {member.config.name: member.head() for member in members}

    @classmethod
    def open(cls, snapshot_path: Path, config: SnapshotConfig, device: str = "auto") -> "TorchEngine":
        """Load the members of a snapshot; raises as `open_engine` does."""
        place = _device(device)
        return cls([Member.load(member, snapshot_path, place) for member in config.members], place)

    @torch.inference_mode()
    def features(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return each member's last feature map, as `Engine` has it."""
        with self._one_at_a_time:
            tensor = torch.from_numpy(batch).to(self.device)
            return {member.config.name: member.features(tensor).float().cpu().numpy() for member in self.members}


def has_accelerator() -> bool:
    """Whether there is a device on this machine that torch can use beside the CPU."""
    return _device("auto").type != "cpu"


def _device(name: str) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(place for place in ("cuda", "mps", "cpu") if available[place])
    if not available.get(name, False):
        raise ConfigError(f"Expected a device that this machine has, got {name!r}; it has no such device.")
    return torch.device(name)
