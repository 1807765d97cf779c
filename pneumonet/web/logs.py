"""The server's log: one JSON object a line, on standard error. No file name, no pixel and no datum of a patient."""

import json
import logging
from datetime import datetime, timezone
from typing import Any, Final

logger = logging.getLogger("pneumonet.requests")

_ROUTES: Final = {"rest": "/predict", "gradio": "/gradio_api", "mcp": "/gradio_api/mcp", "page": "/"}
_FIELDS: Final = ("request_id", "door", "route", "code", "duration_ms")


def log_request(request_id: str, door: str, code: str, duration_ms: float, route: str | None = None) -> None:
    """Log what became of a request: the one line that each gets.

    Args:
        request_id: As in the answer.
        door: rest, gradio, mcp or page.
        code: ok, cancelled, or an error's stable code.
        duration_ms: How long it took.
        route: From `route_of`; the door's by default.
    """
    fields = (request_id, door, route or _ROUTES.get(door, door), code, round(duration_ms, 1))
    logger.info(
        "request=%s door=%s code=%s duration_ms=%.1f",
        request_id,
        door,
        code,
        duration_ms,
        extra=dict(zip(_FIELDS, fields, strict=True)),
    )


class JsonFormatter(logging.Formatter):
    """A record as a JSON object on one line; a request's with its fields, any other's with its message.

    Attributes:
        context: Fields of every line: the engine and the model's revision, once they are known.
    """

    def __init__(self) -> None:
        super().__init__()
        self.context: dict[str, str] = {}

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname, "logger": record.name}
        fields = {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)}
        line |= fields or {"message": record.getMessage()}
        line |= self.context
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
