"""A snapshot's backbones as one OpenVINO graph: converted once, kept in a cache, checked before each use.

Only a conversion loads PyTorch; a start from the cache does without.
"""

import importlib.metadata
import json
import logging
import shutil
import tempfile
import time
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from pneumonet.errors import SnapshotError
from pneumonet.heads import Head, load_heads, save_heads
from pneumonet.snapshot import FileDigest, SnapshotConfig, digest_of, has_digest

_GRAPH: Final = "graph.xml"
_HEADS: Final = "heads.safetensors"
_FILES: Final = (_GRAPH, "graph.bin", _HEADS)
_DIGESTS: Final = "digests.json"
_PARTIAL: Final = ".partial-"
_LEFT_AFTER_SECONDS: Final = 3600
# Raised where the conversion comes to mean something else: what an older PneumoNet cached is then not taken.
_CONVERSION: Final = 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Graph:
    """Backbones from a batch (N, 3, S, S) to each member's last feature map, its outputs named after the members.

    Attributes:
        source: An OpenVINO model, or the file that holds one.
        heads: Each member's head, by its name.
    """

    source: Any
    heads: dict[str, Head]

    def read(self, core: Any) -> Any:
        """Return the OpenVINO model."""
        return core.read_model(self.source) if isinstance(self.source, Path) else self.source


def open_graph(snapshot_path: Path, config: SnapshotConfig, cache_dir: Path) -> Graph:
    """Return a snapshot's graph: from the cache, else converted and cached.

    Args:
        snapshot_path: The snapshot's folder, its files already verified.
        config: The snapshot's config.
        cache_dir: PneumoNet's own cache. Where it cannot be written, every start converts anew, and the log says so.

    Raises:
        SnapshotError: If a member's weights do not fit.
    """
    folder = cache_dir / "engines" / _folder_name(config)
    _sweep(folder.parent)
    if (cached := _cached(folder)) is not None:
        return cached
    _log.info("converting the backbones for OpenVINO, once for each snapshot")
    started = time.perf_counter()
    graph = convert(snapshot_path, config)
    _log.info("converted after %.1f s", time.perf_counter() - started)
    try:
        _keep(graph, folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # OpenVINO and safetensors have errors of their own
        _log.warning("the converted backbones cannot be cached in %s (%s)", folder.parent, error)
    # What is kept is in float16, so that the first start answers as every later one, to the last digit.
    return _cached(folder) or graph


def _folder_name(config: SnapshotConfig) -> str:
    return f"{config.fingerprint}-openvino-{importlib.metadata.version('openvino')}-{_CONVERSION}"


def _cached(folder: Path) -> Graph | None:
    """Return the graph that a folder holds whole, None where there is none."""
    if not folder.is_dir():
        return None
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        if all(has_digest(folder / name, FileDigest(**digests[name])) for name in _FILES):
            return Graph(folder / _GRAPH, load_heads(folder / _HEADS))
    except (OSError, ValueError, TypeError, KeyError, SnapshotError):
        pass
    _log.warning("the converted backbones in %s are damaged", folder)
    return None


def _sweep(engines: Path) -> None:
    """Remove what processes left that were killed while they kept a conversion, which takes seconds."""
    for left in engines.glob(f"{_PARTIAL}*"):
        # Another process may do the same, or end what it was at.
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_AFTER_SECONDS:
                shutil.rmtree(left)


def _keep(graph: Graph, folder: Path) -> None:
    import openvino as ov

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_PARTIAL) as partial:
        fresh = Path(partial) / "graph"
        fresh.mkdir()
        # The snapshot's weights are float16, so that nothing is lost.
        ov.save_model(graph.source, fresh / _GRAPH, compress_to_fp16=True)
        save_heads(graph.heads, fresh / _HEADS)
        digests = {name: asdict(digest_of(fresh / name)) for name in _FILES}
        (fresh / _DIGESTS).write_text(json.dumps(digests, indent=2) + "\n")
        # Of two processes that start at once, the second leaves the first one's alone; a damaged one makes way.
        if folder.is_dir() and _cached(folder) is not None:
            return
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)


def convert(snapshot_path: Path, config: SnapshotConfig) -> Graph:
    """Convert a snapshot's backbones, checked as PyTorch loads them.

    Raises:
        SnapshotError: If a member's weights do not fit.
    """
    import openvino as ov
    import torch

    from pneumonet.members import Member

    members = [Member.load(member, snapshot_path) for member in config.members]

    class Backbones(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.models = torch.nn.ModuleList([member.model for member in members])

        def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(member.features(batch) for member in members)

    side = config.input.size
    with warnings.catch_warnings():
        # torch calls the tracing deprecated that OpenVINO's converter still does.
        warnings.simplefilter("ignore")
        model = ov.convert_model(
            Backbones().eval(),
            example_input=torch.zeros(1, 3, side, side),
            input=[ov.PartialShape([-1, 3, side, side])],
        )
    for output, member in zip(model.outputs, members, strict=True):
        output.get_tensor().set_names({member.config.name})
    return Graph(model, {member.config.name: member.head() for member in members})
