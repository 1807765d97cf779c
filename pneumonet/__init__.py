"""PneumoNet: chest X-ray pneumonia classification for research. Not a medical device."""

from typing import TYPE_CHECKING, Any

from pneumonet.errors import PneumoNetError

if TYPE_CHECKING:
    from pneumonet.finding import Finding
    from pneumonet.model import PneumoNet

__all__ = ["Finding", "PneumoNet", "PneumoNetError", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and `pull`, `publish` and the readers do without it.
    if name == "Finding":
        from pneumonet.finding import Finding

        return Finding
    if name == "PneumoNet":
        from pneumonet.model import PneumoNet

        return PneumoNet
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
