"""Many films into one Parquet file, a row a film: by processes of this machine, or by a Ray cluster.

`sources` lists the films, `worker` answers them in a process of its own, `pool` keeps such processes fed and outlives
their deaths, `local` and `on_ray` put pools to work, `parts` holds what is answered so far, `run` ties them together.
"""

import importlib.util

from pneumonet.errors import ConfigError


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
