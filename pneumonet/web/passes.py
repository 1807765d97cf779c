"""An engine whose passes are told of: what a film costs is counted where it is spent."""

from collections.abc import Callable, Mapping
from copy import copy

import numpy as np
from numpy.typing import NDArray

from pneumonet.engines import Engine
from pneumonet.heads import Head
from pneumonet.model import PneumoNet


class ObservedEngine:
    """An engine that says of each pass how many films it took."""

    def __init__(self, engine: Engine, on_pass: Callable[[int], object]) -> None:
        """Wrap an engine; `on_pass` is called with the number of films after each pass."""
        self.engine, self.on_pass = engine, on_pass
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision
        self.heads: Mapping[str, Head] = engine.heads

    def features(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return each member's last feature map, as `Engine` has it."""
        features = self.engine.features(batch)
        self.on_pass(len(batch))
        return features


def run_by(model: PneumoNet, engine: Engine) -> PneumoNet:
    """Return a model that is another in all but what runs its backbones; the other, which is shared, stays as it is."""
    own = copy(model)
    own.ensemble = copy(model.ensemble)
    own.ensemble.engine = engine
    return own
