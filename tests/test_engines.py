"""Both engines say the same of a film; what was converted is kept, checked, and made anew where it is damaged."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from pneumonet import engines
from pneumonet.engines import Engine, graph, open_engine
from pneumonet.engines.graph import open_graph
from pneumonet.engines.openvino import OpenVinoEngine
from pneumonet.engines.torch import TorchEngine
from pneumonet.errors import ConfigError, SnapshotError
from pneumonet.model import PneumoNet
from pneumonet.preprocessing import to_batch
from pneumonet.radiograph import Radiograph
from pneumonet.settings import DEFAULT_SNAPSHOT, Settings
from pneumonet.snapshot import SnapshotConfig
from tests.support.films import encoded, phantom
from tests.support.snapshots import write_tiny_snapshot

ROOT = Path(__file__).resolve().parents[1]


def _batch(config: SnapshotConfig, count: int) -> np.ndarray:
    films = [Radiograph(phantom(200 + 10 * i, 240, seed=i).astype(np.float32) / 255, "PNG") for i in range(count)]
    return to_batch(films, config.input)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def committed_cache() -> Path:
    """The cache that all tests of the committed weights share: converting takes long, and the tiny ones show it too."""
    return Settings().cache_dir


@pytest.fixture(scope="module", params=["tiny", "committed"])
def snapshot(request: pytest.FixtureRequest, tiny_snapshot: Path) -> Path:
    return tiny_snapshot if request.param == "tiny" else DEFAULT_SNAPSHOT


@pytest.fixture(scope="module")
def reference() -> PneumoNet:
    """The committed weights on torch, loaded once."""
    return PneumoNet.from_pretrained(DEFAULT_SNAPSHOT, engine="torch", device="cpu")


def test_openvino_in_float32_gives_torch_s_features(
    snapshot: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    config = SnapshotConfig.read(snapshot)
    is_committed = snapshot == DEFAULT_SNAPSHOT
    by_torch: Engine = (
        request.getfixturevalue("reference").ensemble.engine
        if is_committed
        else TorchEngine.open(snapshot, config, "cpu")
    )
    place = request.getfixturevalue("committed_cache") if is_committed else cache
    engine = OpenVinoEngine(open_graph(snapshot, config, place), precision="float32")
    for batch in (_batch(config, 1), _batch(config, 3)):
        expected, ours = by_torch.features(batch), engine.features(batch)
        assert list(ours) == [member.name for member in config.members]
        for name, features in ours.items():
            assert features.dtype == np.float32
            scale = float(np.abs(expected[name]).max())
            np.testing.assert_allclose(features, expected[name], atol=1e-3 * scale)


def test_the_engine_that_is_chosen_by_itself_answers_as_torch_does(committed_cache: Path, reference: PneumoNet) -> None:
    """In bfloat16 too, where this CPU has it: label and set the same, probabilities near."""
    config = SnapshotConfig.read(DEFAULT_SNAPSHOT)
    settings = Settings(cache_dir=committed_cache)
    film = encoded(phantom(400, 420))
    by_torch = reference.predict(film, force=True)
    chosen = PneumoNet.from_pretrained(DEFAULT_SNAPSHOT, device="cpu", settings=settings)
    assert chosen.ensemble.engine.name == "openvino"
    ours = chosen.predict(film, force=True)
    tolerance = 1e-3 if chosen.ensemble.engine.precision == "float32" else 0.03
    assert ours.label == by_torch.label
    np.testing.assert_allclose(list(ours.probabilities.values()), list(by_torch.probabilities.values()), atol=tolerance)
    for source, maps in by_torch.saliency.items():
        for label, saliency_map in maps.items():
            np.testing.assert_allclose(ours.saliency[source][label], saliency_map, atol=max(0.02, 3 * tolerance))
    assert any(config.fingerprint in folder.name for folder in (committed_cache / "engines").iterdir())


def test_a_second_start_converts_nothing_and_loads_no_torch(tiny_snapshot: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path;"
        "from pneumonet.model import PneumoNet; from pneumonet.settings import Settings;"
        "m = PneumoNet.from_pretrained(sys.argv[1], device='cpu', settings=Settings(cache_dir=Path(sys.argv[2])));"
        "f = m.predict(sys.argv[3], force=True);"
        "import json; print(json.dumps(['torch' in sys.modules, f.probabilities, m.ensemble.engine.name]))"
    )
    film = tmp_path / "film.png"
    film.write_bytes(encoded(phantom()))
    command = [sys.executable, "-c", script, str(tiny_snapshot), str(tmp_path / "cache"), str(film)]
    first, second = (json.loads(subprocess.check_output(command, cwd=ROOT, text=True)) for _ in range(2))
    assert (first[0], second[0]) == (True, False)
    assert first[2] == second[2] == "openvino"
    assert second[1] == pytest.approx(first[1], abs=1e-4)


@pytest.fixture(scope="module")
def converted(tiny_snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, np.ndarray]]:
    """A cache with the tiny snapshot's conversion, to be copied, and the features of a batch by it."""
    folder = tmp_path_factory.mktemp("converted")
    config = SnapshotConfig.read(tiny_snapshot)
    return folder, OpenVinoEngine(open_graph(tiny_snapshot, config, folder)).features(_batch(config, 1))


@pytest.mark.parametrize("name", ["graph.xml", "graph.bin", "heads.safetensors", "digests.json"])
@pytest.mark.parametrize("how", ["cut short", "changed", "missing"])
def test_a_damaged_conversion_is_made_anew(
    tiny_snapshot: Path,
    converted: tuple[Path, Mapping[str, np.ndarray]],
    tmp_path: Path,
    name: str,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = SnapshotConfig.read(tiny_snapshot)
    batch = _batch(config, 1)
    cache, expected = converted
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "engines").iterdir()
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if how == "cut short":
        path.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        path.write_bytes(content[:-20] + bytes(byte ^ 1 for byte in content[-20:]))
    with caplog.at_level(logging.WARNING):
        again = OpenVinoEngine(open_graph(tiny_snapshot, config, tmp_path)).features(batch)
    assert "damaged" in caplog.text
    for member, features in expected.items():
        np.testing.assert_allclose(again[member], features, atol=1e-4)
    assert graph._cached(folder) is not None, "whole again; not compared by size, as OpenVINO numbers its graphs"


def test_what_a_killed_conversion_left_goes_with_a_later_start_but_for_one_under_way(
    tiny_snapshot: Path, converted: tuple[Path, Mapping[str, np.ndarray]], tmp_path: Path
) -> None:
    shutil.copytree(converted[0], tmp_path, dirs_exist_ok=True)
    left, under_way = (tmp_path / "engines" / f".partial-{name}" for name in ("left", "under_way"))
    for folder in (left, under_way):
        (folder / "graph").mkdir(parents=True)
        (folder / "graph" / "graph.bin").write_bytes(bytes(9))
    os.utime(left, (time.time() - 4000,) * 2)
    open_graph(tiny_snapshot, SnapshotConfig.read(tiny_snapshot), tmp_path)
    assert not left.exists()
    assert under_way.exists()
    assert len(list((tmp_path / "engines").iterdir())) == 2, "and the conversion"


@pytest.mark.parametrize(("value", "threads"), [("1", 1), ("1,2", 1), ("", None), ("many", None), ("0", None)])
def test_openvino_keeps_to_openmp_s_number_of_threads(
    tiny_snapshot: Path,
    converted: tuple[Path, Mapping[str, np.ndarray]],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    threads: int | None,
) -> None:
    asked = []

    class Core(openvino.Core):
        def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> Any:
            asked.append(options.get("INFERENCE_NUM_THREADS"))
            return super().compile_model(model, device, options)

    monkeypatch.setattr(openvino, "Core", Core)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    OpenVinoEngine.open(tiny_snapshot, SnapshotConfig.read(tiny_snapshot), converted[0])
    assert asked == [threads]


def test_a_cache_that_cannot_be_written_costs_a_conversion_and_says_so(
    tiny_snapshot: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "engines").write_text("a file where the folder would be")
    config = SnapshotConfig.read(tiny_snapshot)
    with caplog.at_level(logging.WARNING):
        engine = OpenVinoEngine(open_graph(tiny_snapshot, config, tmp_path))
    assert "cannot be cached" in caplog.text
    assert set(engine.features(_batch(config, 1))) == {"convnext_tiny", "efficientnetv2_s"}


def test_other_weights_are_another_conversion(tmp_path: Path) -> None:
    for version in ("0.0.1", "0.0.2"):
        write_tiny_snapshot(tmp_path / version, version=version)
        open_graph(tmp_path / version, SnapshotConfig.read(tmp_path / version), tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "engines").iterdir())) == 2


def test_two_threads_do_not_mix_their_films(tiny_snapshot: Path, cache: Path) -> None:
    config = SnapshotConfig.read(tiny_snapshot)
    engine = OpenVinoEngine(open_graph(tiny_snapshot, config, cache))
    batches = list(_batch(config, 6)[:, None])
    alone = [engine.features(batch) for batch in batches]
    together: list[dict[str, np.ndarray]] = [{} for _ in batches]

    def work(i: int) -> None:
        for _ in range(5):
            together[i] = engine.features(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, got in zip(alone, together, strict=True):
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])


def test_openvino_s_own_reporting_is_off() -> None:
    """It would send an event to its maker at each import."""
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('something asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import pneumonet.engines.openvino, openvino\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "print(telemetry_utils.tm.__name__)"
    )
    out = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)
    assert out.strip() == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize(("device", "driver", "found", "chosen"), [
    ("auto", True, False, "openvino"), ("auto", True, True, "torch"), ("auto", False, True, "openvino"),
    ("cpu", True, True, "openvino"), ("cuda", True, True, "torch"),
])  # fmt: skip
def test_a_driver_without_a_device_leaves_openvino_to_be_chosen(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    device: str, driver: bool, found: bool, chosen: str,
) -> None:  # fmt: skip
    opened: list[str] = []
    monkeypatch.setattr(engines, "_may_have_accelerator", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(TorchEngine, "open", lambda *_: opened.append("torch"))
    monkeypatch.setattr(OpenVinoEngine, "open", lambda *_: opened.append("openvino"))
    open_engine("auto", device, tiny_snapshot, SnapshotConfig.read(tiny_snapshot), tmp_path)
    assert opened == [chosen]


def test_an_engine_that_cannot_run_there_is_a_clear_error(tiny_snapshot: Path, tmp_path: Path) -> None:
    config = SnapshotConfig.read(tiny_snapshot)
    with pytest.raises(ConfigError, match="openvino runs on a CPU"):
        open_engine("openvino", "cuda", tiny_snapshot, config, tmp_path)


def test_weights_that_do_not_fit_are_refused_at_conversion(tiny_snapshot: Path, tmp_path: Path) -> None:
    config = write_tiny_snapshot(tmp_path / "snapshot")
    (tmp_path / "snapshot" / "convnext_tiny" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SnapshotError, match="convnext_tiny"):
        open_graph(tmp_path / "snapshot", config, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_cuda_gives_the_cpu_s_features(tiny_snapshot: Path) -> None:
    config = SnapshotConfig.read(tiny_snapshot)
    batch = _batch(config, 2)
    by_cpu, by_cuda = (TorchEngine.open(tiny_snapshot, config, place).features(batch) for place in ("cpu", "cuda"))
    for name, features in by_cpu.items():
        np.testing.assert_allclose(by_cuda[name], features, atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_whole_answer_on_cuda_is_the_cpu_s(tiny_snapshot: Path) -> None:
    film = encoded(phantom())
    by_cpu, by_cuda = (
        PneumoNet.from_pretrained(tiny_snapshot, engine="torch", device=place).predict(film, force=True)
        for place in ("cpu", "cuda")
    )
    assert by_cuda.label == by_cpu.label
    assert by_cuda.probabilities == pytest.approx(by_cpu.probabilities, abs=1e-2)
    for source, by_class in by_cpu.saliency.items():
        for label, saliency_map in by_class.items():
            np.testing.assert_allclose(by_cuda.saliency[source][label], saliency_map, atol=5e-2)
