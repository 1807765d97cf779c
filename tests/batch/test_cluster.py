"""Ray clusters that cannot be joined, and how many actors one gets; no cluster is started."""

import socket
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import ray
import ray.exceptions

from pneumonet.batch import cluster as cluster_module
from pneumonet.batch.cluster import actors_of, cluster, knock
from pneumonet.batch.job import Job
from pneumonet.batch.on_ray import _Answerer, _on_gpu
from pneumonet.batch.process import Film
from pneumonet.batch.rows import Row, failed
from pneumonet.batch.schema import SCHEMA
from pneumonet.errors import ConfigError, TookTooLongError


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


class _Pool:
    """What a pool says of some films: it stops before the third."""

    made: ClassVar[list[tuple[Job, int]]] = []

    def __init__(self, job: Job, workers: int) -> None:
        self.made.append((job, workers))

    def __enter__(self) -> None:
        pass

    def answer(self, films: Iterable[Film]) -> Iterator[Row]:
        for path, place in list(films)[:2]:
            yield failed(path, None, "local-1", TookTooLongError(ascii(place)))


def test_an_actor_answers_by_a_pool_of_one_as_this_machine_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumonet.batch.on_ray.WorkerPool", _Pool)
    monkeypatch.setattr(_Pool, "made", [])
    job = _job("cpu", 1, 3)
    actor = _Answerer(job)
    assert _Pool.made == [(job, 1)]
    table = pa.Table.from_pylist([{"path": name, "place": b"at \xff" + name.encode()} for name in "abc"])
    rows = actor(table).to_pylist()
    assert [(row["path"], row["error"]) for row in rows] == [(name, ascii(f"at \udcff{name}")) for name in "ab"]


def test_an_actor_whose_pool_is_stopped_gives_no_rows_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pneumonet.batch.on_ray.WorkerPool", _Pool)
    table = pa.Table.from_pylist([], pa.schema([("path", pa.string()), ("place", pa.binary())]))
    assert _Answerer(_job())(table).schema.equals(SCHEMA)
