"""Ray clusters that cannot be joined, and how many actors one gets; no cluster is started."""

import socket
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
import ray.exceptions

from pneumonet.batch import cluster as cluster_module
from pneumonet.batch.cluster import actors_of, cluster, knock
from pneumonet.batch.job import Job
from pneumonet.batch.on_ray import _Answerer, _on_gpu
from pneumonet.errors import ConfigError
from tests.batch.conftest import HANG, film, harm


def _job(device: str = "auto", threads: int = 2, film_seconds: float = 120, **environment: str) -> Job:
    return Job({"PNEUMONET_DEVICE": device, **environment}, "local-1", False, threads, film_seconds)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:10001", "http://127.0.0.1:8265"])
def test_an_address_with_a_scheme_is_refused_by_its_name(address: str) -> None:
    with pytest.raises(ConfigError, match="no address with a scheme") as raised:
        knock(address)
    assert address in raised.value.message
    assert "6379" in raised.value.hint


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9", "127.0.0.1:99999", f"{'a' * 70}.example:6379"])
def test_where_nobody_listens_it_is_told_at_once(address: str) -> None:
    with pytest.raises(ConfigError, match="No Ray cluster answers"):
        knock(address)


def test_who_listens_is_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        knock(f"127.0.0.1:{server.getsockname()[1]}")
    for address in ("local", "auto"):
        knock(address)


@pytest.mark.parametrize(
    "error",
    [
        ray.exceptions.AuthenticationError("a token is wanted"),
        ray.exceptions.RaySystemError("no GCS"),
        PermissionError(13, "Permission denied"),
        ConnectionError("nobody there"),
        ValueError("a bad address"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("asked", ["init", "cluster_resources"])
def test_a_cluster_that_refuses_is_one_sentence(monkeypatch: pytest.MonkeyPatch, error: Exception, asked: str) -> None:
    def refuse(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, asked, refuse)
    with pytest.raises(ConfigError, match="or it refuses us") as raised, cluster("head:6379", _job(), None):
        pass
    assert "RAY_AUTH_TOKEN" in raised.value.hint


@pytest.mark.parametrize(("workers", "cores"), [(None, 3), (4, 8)])
def test_a_cluster_of_this_machine_has_the_cores_that_a_container_grants(
    monkeypatch: pytest.MonkeyPatch, workers: int | None, cores: int
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(cluster_module, "usable_cores", lambda: 3)
    monkeypatch.setattr(ray, "init", lambda **options: asked.update(options))
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(asked["num_cpus"])})
    with cluster("local", _job(), workers) as resources:
        assert asked["num_cpus"] == resources["CPU"] == cores


@pytest.mark.parametrize(
    ("has", "workers", "on_gpu", "actors"),
    [
        ({"CPU": 9.0}, None, False, 4),
        ({"CPU": 1.0}, None, False, 1),
        ({"CPU": 9.0}, 2, False, 2),
        ({"CPU": 64.0, "GPU": 1.0}, None, True, 1),
        ({"CPU": 64.0, "GPU": 4.0}, None, True, 4),
        ({"CPU": 64.0, "GPU": 4.0}, 2, True, 2),
        ({"CPU": 64.0, "GPU": 4.0}, 16, True, 4),
        ({"CPU": 64.0, "GPU": 4.0}, None, False, 32),
    ],
)
def test_actors_are_as_many_as_have_cores_or_a_gpu_each(
    has: dict[str, float], workers: int | None, on_gpu: bool, actors: int
) -> None:
    assert actors_of(has, _job(), workers, on_gpu=on_gpu) == actors


def test_a_cluster_without_the_gpu_that_is_asked_for_is_told_of() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        actors_of({"CPU": 8.0}, _job("cuda"), None, on_gpu=True)


@pytest.mark.parametrize(
    ("asked", "address", "here", "on_gpu"),
    [
        ("auto", "local", "cuda", True),
        ("auto", "local", "cpu", False),
        ("auto", "head:6379", "cuda", False),
        ("cuda", "head:6379", "cpu", True),
        ("cpu", "local", "cpu", False),
    ],
)
def test_gpus_are_asked_for_where_the_model_runs_on_one(asked: str, address: str, here: str, on_gpu: bool) -> None:
    assert _on_gpu(_job(asked), address, here) is on_gpu


def test_an_actor_gives_up_a_film_that_hangs_as_a_local_worker_does(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(harm(tmp_path)))
    for name, data in (("a", film(1)), ("b", film(2, HANG))):
        (tmp_path / name).write_bytes(data)
    actor = _Answerer(_job("cpu", 1, 3, PNEUMONET_MODEL=str(tiny_snapshot)))
    places = [{"path": name, "place": str(tmp_path / name).encode()} for name in "ab"]
    rows = actor(pa.Table.from_pylist(places)).to_pylist()
    actor._pool.close(at_once=True)
    assert sorted((row["path"], row["error_code"]) for row in rows) == [("a", None), ("b", "took_too_long")]
