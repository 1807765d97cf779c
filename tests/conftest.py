"""What every test shares: no network, no settings from outside, and a tiny snapshot."""

import os
import tempfile

# huggingface_hub and gradio read these once, when they are imported.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="pneumonet-tests-hf-")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="pneumonet-tests-cache-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumonet.model import PneumoNet
from tests.support.snapshots import write_tiny_snapshot

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PNEUMONET_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot folder of tiny random backbones."""
    folder = tmp_path_factory.mktemp("tiny-snapshot")
    write_tiny_snapshot(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_snapshot: Path) -> Iterator[PneumoNet]:
    """PneumoNet of tiny random backbones."""
    return PneumoNet.from_pretrained(tiny_snapshot, device="cpu")


@pytest.fixture
def shared_data() -> Path:
    """The data beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside this clone")
    return SHARED_DATA
