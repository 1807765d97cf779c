"""OpenVINO: the same backbones as one graph, compiled for this CPU; bfloat16 where the CPU computes in it."""

import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pneumonet.engines.graph import Graph, open_graph
from pneumonet.heads import Head
from pneumonet.snapshot import SnapshotConfig

# OpenVINO reports each import to its maker where this package is found; PneumoNet phones nobody.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_BFLOAT16: Final = "BF16"


class OpenVinoEngine:
    """Runs one graph that ends in each member's last feature map."""

    name = "openvino"
    device = "cpu"

    def __init__(self, graph: Graph, precision: str | None = None) -> None:
        """Compile a graph.

        Args:
            graph: From `open_graph`.
            precision: float32 or bfloat16; None for bfloat16 where the CPU has instructions for it.
        """
        import openvino as ov

        core = ov.Core()
        if precision is None:
            has_bfloat16 = _BFLOAT16 in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bfloat16" if has_bfloat16 else "float32"
        hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
        options: dict[str, str | int] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
        # PyTorch keeps to it by itself; several workers on one machine share its cores by it. A list is one by level of
        # nesting (OpenMP 5.2, section 21.1.2), and what is no number is as if it was not set.
        threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
        if threads.isdecimal() and int(threads):
            options["INFERENCE_NUM_THREADS"] = int(threads)
        compiled: Any = core.compile_model(graph.read(core), "CPU", options)
        self.precision = precision
        self.heads: Mapping[str, Head] = graph.heads
        self._request = compiled.create_infer_request()
        self._outputs = {name: compiled.output(name) for name in graph.heads}
        # One pass takes every core: two at once would only make both slower.
        self._one_at_a_time = threading.Lock()

    @classmethod
    def open(cls, snapshot_path: Path, config: SnapshotConfig, cache_dir: Path) -> "OpenVinoEngine":
        """Load a snapshot's graph, converted at its first start and then from the cache; raises as `open_engine`."""
        return cls(open_graph(snapshot_path, config, cache_dir))

    def features(self, batch: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return each member's last feature map, as `Engine` has it."""
        with self._one_at_a_time:
            results = self._request.infer([batch], share_inputs=True)
            # The next pass writes into the same memory.
            return {name: results[output].astype(np.float32, copy=True) for name, output in self._outputs.items()}
