"""What of Gradio's routes is offered, and what is asked of them that Gradio would fail at, or never forget."""

import json
import re
from typing import Any, Final

from starlette.datastructures import QueryParams

from pneumonet.errors import BadRequestError

GRADIO: Final = "/gradio_api/"
MCP_ROUTE: Final = GRADIO + "mcp"
_CALL: Final = GRADIO + "call/v2/"
_DEPTH: Final = 32
# Parts of Gradio that the page does not use, and that would write to disk or to the log, run code, reach other servers,
# or start the queue once more.
_CLOSED_NAMES: Final = (
    "deep_link process_recording component_server stream proxy= file=http file/http vibe- undo-vibe runs run-history "
    "dev/ startup-events custom_component"
)
_CLOSED: Final = tuple(GRADIO + name for name in _CLOSED_NAMES.split(" "))
# Gradio keeps them as keys of its memory, whatever their length.
_NAMES: Final = ("session_hash", "event_id")
_NAME: Final = re.compile(r"[\w-]{1,64}", re.ASCII)
NO_ENDPOINT: Final = "There is no endpoint of that name."
_NOT_OFFERED: Final = "This server does not offer that."


class GradioRoutes:
    """The routes of one page, each called by the page and by strangers alike."""

    def __init__(self, page: Any) -> None:
        """Learn the events of a gr.Blocks that is mounted, its prefix, and whether it has a door for agents."""
        self._prefix = page.root_path and page.root_path + "/"
        self._agents = (MCP_ROUTE, MCP_ROUTE + "/", MCP_ROUTE + "/schema") if page.mcp_server else ()
        self._events = frozenset(page.fns)
        self._endpoints = frozenset(str(fn.api_name) for fn in page.fns.values())
        # Of each public endpoint, its arguments and whether each may be left out.
        self._arguments = {
            name.strip("/"): {p["parameter_name"]: p.get("parameter_has_default", False) for p in info["parameters"]}
            for name, info in page.get_api_info()["named_endpoints"].items()
        }

    def missing(self, path: str, query: QueryParams) -> str | None:
        """Return why nothing of Gradio's answers at a path, as a sentence; None where something does.

        Raises:
            BadRequestError: If it names a session or an event as Gradio never does.
        """
        if self._prefix and path.startswith(self._prefix):
            # The gate has stripped it once, and Gradio would strip it once more: what it then finds nobody has checked.
            return _NOT_OFFERED
        if path.startswith(_CLOSED) or (path.startswith(MCP_ROUTE) and path not in self._agents):
            return _NOT_OFFERED
        if not path.startswith(GRADIO):
            return None
        asked = path.removeprefix(GRADIO).split("/")
        if asked[0] == "heartbeat":
            _check_name("session_hash", "/".join(asked[1:]).rstrip("/"))
        for name in _NAMES:
            for value in query.getlist(name):
                _check_name(name, value)
        # The name follows /call/ or /call/v2/; without this Gradio fails with a traceback.
        name = asked[2] if asked[:2] == ["call", "v2"] and len(asked) > 2 else asked[1] if len(asked) > 1 else ""
        if asked[0] in ("call", "run", "api") and name not in self._endpoints:
            return NO_ENDPOINT
        return None

    def missing_by(self, path: str, body: bytes) -> str | None:
        """Return why nothing of Gradio's answers a body, as a sentence; None where something does.

        Raises:
            BadRequestError: If Gradio would fail at it with a traceback, or never forget it.
        """
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            # It may be no JSON by right; where it should be, Gradio says so.
            return None
        if _is_deep(fields):
            raise BadRequestError("The JSON body is nested too deeply.")
        if not isinstance(fields, dict):
            return None
        for name in _NAMES:
            if fields.get(name) is not None:
                _check_name(name, fields[name])
        if path == GRADIO + "queue/join" and _whole(fields.get("fn_index")) not in self._events | {None}:
            return "There is no event of that number."
        if path.startswith(_CALL):
            return self._missing_arguments(path.removeprefix(_CALL).strip("/"), fields)
        return None

    def _missing_arguments(self, endpoint: str, fields: dict[str, Any]) -> str | None:
        arguments = self._arguments.get(endpoint)
        if arguments is None:
            return NO_ENDPOINT
        needed = {name for name, optional in arguments.items() if not optional}
        if needed - fields.keys() or fields.keys() - {*arguments, "oauth_token"}:
            raise BadRequestError(f"Expected of the arguments {', '.join(arguments)} at least {', '.join(needed)}.")
        return None


def _check_name(name: str, value: object) -> None:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadRequestError(f"Expected `{name}` to be 1 to 64 letters, digits, hyphens or underscores.")


def _whole(value: Any) -> Any:
    # Pydantic takes these for whole numbers, and so must whoever looks before it does.
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEPTH):
        nested = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [item for items in nested for item in items]
    return bool(level)
