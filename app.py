"""PneumoNet's entry point, on a Space and elsewhere: `python app.py`."""

import sys

from pneumonet.errors import ConfigError
from pneumonet.settings import Settings


def main() -> int:
    """Serve as the environment asks; returns the exit code."""
    try:
        settings = Settings.from_environment()
    except ConfigError as error:
        print(error.told, file=sys.stderr)
        return 2
    from pneumonet.web.importing import imported_at_start

    with imported_at_start():
        from pneumonet.web.server import serve  # takes seconds, and a wrong setting is told at once

    return serve(settings)


if __name__ == "__main__":
    sys.exit(main())
