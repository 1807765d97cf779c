"""A Ray cluster for the time of a batch: this machine alone, or one that runs already."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import ray
import ray.data
import ray.exceptions

from pneumonet.batch.cores import usable_cores
from pneumonet.batch.job import Job
from pneumonet.errors import ConfigError

LOCAL: Final = "local"
# Paths and rows are all that it ever holds; Ray would take a third of the machine's memory.
_OBJECT_STORE_BYTES: Final = 256 * 2**20
_SECONDS_TO_ANSWER: Final = 10
_ROOT: Final = str(Path(__file__).resolve().parents[2])


def knock(address: str) -> None:
    """See that somebody listens at an address of host:port; Ray would try it for minutes.

    Raises:
        ConfigError: If nobody does, or the address is of a kind that a batch cannot use.
    """
    if "://" in address:
        raise ConfigError(
            f"--ray takes no address with a scheme, got {address!r}.",
            hint="Give the host:port of the cluster itself, port 6379 where it has Ray's own, not of Ray Client.",
        )
    host, _, port = address.rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _SECONDS_TO_ANSWER).close()
        except (OSError, OverflowError, UnicodeError) as error:
            raise _no_cluster(address) from error


@contextmanager
def cluster(address: str, job: Job, workers: int | None) -> Iterator[dict[str, float]]:
    """Join a cluster, or start one of this machine alone that ends with the batch, and yield what it has of each kind.

    Args:
        address: `local`, or a cluster's host:port.
        job: What is asked.
        workers: How many actors a cluster of this machine is to have room for; None for all that its cores carry.

    Raises:
        ConfigError: If no cluster answers, or it refuses us.
    """
    path = os.pathsep.join([_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])])
    options: dict[str, Any] = {
        "address": address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {"PYTHONPATH": path}},
    }
    if address == LOCAL:
        # Ray counts the machine's cores, whatever a container grants.
        cores = workers * job.threads if workers else usable_cores()
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": cores}
    try:
        ray.init(**options)
        resources: dict[str, float] = ray.cluster_resources()
    except (ray.exceptions.RayError, OSError, ValueError, RuntimeError) as error:
        ray.shutdown()
        raise _no_cluster(address) from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield resources
    finally:
        ray.shutdown()


def actors_of(resources: dict[str, float], job: Job, workers: int | None, *, on_gpu: bool) -> int:
    """Return how many actors a cluster is to have: as many as asked, or as it has cores for; never two at one GPU.

    Raises:
        ConfigError: If each needs a GPU and the cluster has none: Ray would wait for one for ever.
    """
    if not on_gpu:
        return workers or max(1, int(resources.get("CPU", 1)) // job.threads)
    gpus = int(resources.get("GPU", 0))
    if not gpus:
        raise ConfigError("The Ray cluster has no GPU.", hint="Set PNEUMONET_DEVICE=cpu, or leave it unset.")
    return min(workers or gpus, gpus)


def _no_cluster(address: str) -> ConfigError:
    return ConfigError(
        f"No Ray cluster answers at {address!r}, or it refuses us.",
        hint="Give its host:port and, where it asks for a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN as Ray has them.",
    )
