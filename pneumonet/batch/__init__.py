"""Many films into one Parquet file, a row a film: by processes of this machine, or by a Ray cluster.

`sources` lists the films, `worker` answers them in a process of its own, which is a `process` to the `pool` that keeps
some of them fed and outlives their deaths. `local` and `on_ray` put pools to work, `parts` holds what is answered so
far, behind a `lock`; `labels` and `figures` say how good it is, `run` ties them together.
"""

import importlib.util
import os

from pneumonet.errors import ConfigError

# Ray reads these when it is imported: it phones nobody, and what its C++ side warns of stays in its own log files.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def check_installed(*packages: str) -> None:
    """See that packages of requirements-batch.txt are there, without importing them.

    Raises:
        ConfigError: If one is missing.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"A batch needs the package {' and '.join(missing)}, which is not installed.",
            hint="Run: python -m pip install -r requirements-batch.txt",
        )
