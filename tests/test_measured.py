"""What a normal answer says of the films that were missed."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pneumonet.measured import MissRate, caution_on_normal
from pneumonet.snapshot import SnapshotConfig
from tests.support.snapshots import write_tiny_snapshot


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SnapshotConfig:
    return write_tiny_snapshot(tmp_path_factory.mktemp("snapshot"))


def _metrics(config: SnapshotConfig, **confusion: Any) -> str:
    counts = {"false_negative": 40, "true_positive": 460} | confusion
    return json.dumps({"model": {"revision": f"local-{config.fingerprint}"}, "binary": {"confusion": counts}})


def test_the_miss_rate_is_that_of_these_weights(config: SnapshotConfig, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(_metrics(config))
    assert MissRate.read(tmp_path, config) == MissRate(40, 500)


@pytest.mark.parametrize(
    "text",
    [
        None, "", "[]", "null", "{}", '{"model": {"revision": "local-0123456789ab"}, "binary": {"confusion": {}}}',
        "[" * 100_000, "\xff",
    ],
    ids=["missing", "empty", "list", "null", "nothing", "other-weights", "deep", "not-utf-8"],
)  # fmt: skip
def test_figures_that_say_nothing_of_these_weights_are_not_told(
    config: SnapshotConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_bytes(text.encode("latin-1"))
    with caplog.at_level(logging.WARNING):
        assert MissRate.read(tmp_path, config) is None
    assert "metrics.json" in caplog.text


def test_counts_below_nothing_are_not_told(config: SnapshotConfig, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(_metrics(config, false_negative=-1))
    assert MissRate.read(tmp_path, config) is None


def test_the_caution_stands_with_and_without_a_figure() -> None:
    assert "Of 500 films of children with pneumonia" in caution_on_normal(MissRate(40, 500))
    assert "called 40 normal" in caution_on_normal(MissRate(40, 500))
    for unknown in (None, MissRate(0, 0)):
        assert "does not rule out disease" in caution_on_normal(unknown)
        assert "not known" in caution_on_normal(unknown)
