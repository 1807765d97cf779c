"""The door for agents, on request: Gradio's MCP server, with one tool that takes a film and asks nothing of others.

As Gradio makes it, a call goes from the server to itself, by way of a client for the host that its first caller named,
kept for all who come later, and the film is written to disk. Here it goes to the service, and the film stays in memory.
"""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from pneumonet import __version__
from pneumonet.errors import BadRequestError, ConfigError, EmptyFileError, NoFileError, PneumoNetError
from pneumonet.finding import DISCLAIMER, Finding
from pneumonet.language import said
from pneumonet.rendering import overlay, png
from pneumonet.web.answers import (
    as_error,
    fault,
    log_refusal,
    milliseconds_since,
    refusals_logged,
    request_id_of,
    too_large,
)
from pneumonet.web.bodies import decoded, read_json
from pneumonet.web.gradio_routes import MCP_ROUTE
from pneumonet.web.languages import language_asked
from pneumonet.web.service import Service
from pneumonet.web.tracing import trace_of
from pneumonet.web.uploads import take_file

_DOOR: Final = "mcp"
_ENDPOINT: Final = "/predict"
# What stands in a call where the gate took the film out.
_TAKEN_OUT: Final = "data:"
# Gradio's own tool for uploads answers with an address of this server's; what follows is what the upload was answered.
_UPLOADED: Final = "/gradio_api/file="
_HOW_TO_SEND: Final = "Send a data URI, or what POST /gradio_api/upload answered: this server fetches nothing."
_DESCRIPTION: Final = (
    "Classify one frontal chest X-ray: bacterial pneumonia, viral pneumonia or normal. Answers with the finding as JSON"
    " and with a heatmap, a PNG, of where the film influenced the answer, which is not where disease is. "
    f"{DISCLAIMER} It informs and never diagnoses: say so to whoever reads the answer, and pass its warnings on."
)
_ARGUMENTS: Final[dict[str, dict[str, Any]]] = {
    "file": {
        "type": "string",
        "description": "The film, JPEG, PNG, TIFF, WebP, BMP or DICOM: a data URI (data:image/png;base64,...), or what "
        "POST /gradio_api/upload answered for it. No web address: this server fetches nothing.",
    },
    "force": {
        "type": "boolean",
        "default": False,
        "description": "true to answer a picture that would be refused as no chest film that the model knows",
    },
}
_SCHEMA: Final = {
    "type": "object",
    "properties": _ARGUMENTS,
    "required": ["file"],
    "additionalProperties": False,
}


async def read_call(request: Request, limit: int) -> bytes:
    """Read the body of a call within bounds, and take the film out of it.

    What is left is small: whoever parses and keeps it holds up nobody, and holds the film no second time.

    Args:
        request: Gets the film, or the error that stands for it, as `state.film`; its headers tell the new length.
        limit: The most bytes of a film.

    Returns:
        The body without the film.

    Raises:
        BadRequestError: If the body is no JSON object, or holds too much beside the film.
        FileTooLargeError: If it is too large.
    """
    fields = await read_json(request, limit, "file")
    parameters = fields.get("params")
    arguments = parameters.get("arguments") if isinstance(parameters, dict) else None
    film = arguments.get("file") if isinstance(arguments, dict) else None
    if isinstance(arguments, dict) and isinstance(film, str) and film[:5].lower() == "data:":
        arguments["file"] = _TAKEN_OUT
        request.state.film = await anyio.to_thread.run_sync(_film_or_error, film, limit)
    body = json.dumps(fields).encode()
    headers = MutableHeaders(scope=request.scope)
    if "content-length" in headers:
        headers["content-length"] = str(len(body))
    return body


def _film_or_error(data_uri: str, limit: int) -> bytes | PneumoNetError:
    try:
        film = decoded(data_uri, "file")
    except BadRequestError as error:
        return error
    if not film:
        return EmptyFileError(said("The file is empty."))
    return too_large(limit) if len(film) > limit else film


def open_door(app: FastAPI, page: Any, service: Service) -> None:
    """Make the MCP server of a mounted page offer one tool, and nothing else of what Gradio's offers.

    Args:
        app: What the page is mounted on.
        page: A gr.Blocks, mounted with `mcp_server=True`.
        service: Answers the films.

    Raises:
        ConfigError: If the package mcp is missing, or is one that Gradio does not know.
    """
    gradios = page.mcp_server_obj
    if gradios is None:
        # Gradio would start without it, and say nothing.
        message = "PNEUMONET_MCP is 1, and the package mcp is missing or of another version."
        raise ConfigError(message, hint="Install requirements-mcp.txt.")
    from mcp import types

    # Gradio lists the tools from these, at /schema too.
    gradios.tool_to_endpoint = {tool: name for tool, name in gradios.tool_to_endpoint.items() if name == _ENDPOINT}
    gradios.get_fn_description = lambda *_: (_DESCRIPTION, {})
    gradios.get_input_schema = lambda *_: (_SCHEMA, [["file"]])
    server = gradios.mcp_server
    server.version, server.instructions = __version__, str(DISCLAIMER)
    # The others make that client, some before they look whether there is what was asked for.
    kept = (types.PingRequest, types.ListToolsRequest)
    handlers = {kind: handle for kind, handle in server.request_handlers.items() if kind in kept}
    server.request_handlers = {**handlers, types.CallToolRequest: _Tool(service, gradios)}
    # Gradio's mount has the path with a slash at its end; without it, it would send callers on to the host they named.
    app.router.routes.insert(0, Route(MCP_ROUTE, _PassedOn(gradios.manager)))


class _PassedOn:
    """An ASGI app that hands each request to Gradio's MCP server."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._manager.handle_request(scope, receive, send)


class _Tool:
    """The one tool: it answers calls of MCP."""

    def __init__(self, service: Service, gradios: Any) -> None:
        self._service, self._gradios = service, gradios

    async def __call__(self, call: Any) -> Any:
        """Answer a call, a mcp.types.CallToolRequest; what goes wrong is an answer too, for the agent to read."""
        from mcp import McpError, types

        request: Request = self._gradios.mcp_server.request_context.request
        request_id, language, started = request_id_of(request), language_asked(request), time.perf_counter()
        if call.params.name not in self._gradios.tool_to_endpoint:
            log_refusal(request_id, _DOOR, "not_found", started)
            raise McpError(types.ErrorData(code=types.INVALID_PARAMS, message="There is no tool of that name."))
        pictures = []
        try:
            finding, picture = await self._answer(request, call.params.arguments or {}, request_id)
            told = finding.answer(request_id, milliseconds_since(started), language)
            pictures = [types.ImageContent(type="image", data=picture, mimeType="image/png")]
        except Exception as error:
            known = error if isinstance(error, PneumoNetError) else fault(error, request_id, _DOOR, started)
            told = as_error(known, request_id, language)
        text = types.TextContent(type="text", text=json.dumps(told, ensure_ascii=False))
        return types.ServerResult(types.CallToolResult(content=[text, *pictures], isError=not pictures))

    async def _answer(self, request: Request, arguments: Mapping[str, Any], request_id: str) -> tuple[Finding, str]:
        with refusals_logged(request_id, _DOOR):
            if arguments.keys() - _ARGUMENTS.keys():
                raise BadRequestError("Expected no arguments but `file` and `force`.")
            force = arguments.get("force")
            if not isinstance(force, bool) and force is not None:
                raise BadRequestError("Expected `force` to be true or false.")
            film = _film_of(request, arguments.get("file"), self._service.settings.max_upload_bytes)
        return await self._service.answer(
            film,
            draw=lambda finding: base64.b64encode(png(overlay(finding))).decode("ascii"),
            request_id=request_id,
            door=_DOOR,
            force=bool(force),
            trace=trace_of(request),
        )


def _film_of(request: Request, file: object, limit: int) -> bytes:
    if file == _TAKEN_OUT:
        film: bytes | PneumoNetError = request.state.film
        if isinstance(film, PneumoNetError):
            raise film
        return film
    if file is None:
        raise NoFileError(said("No file was sent."))
    if not isinstance(file, str):
        raise BadRequestError("Expected `file` to be text.", hint=_HOW_TO_SEND)
    _, is_address, path = file.partition(_UPLOADED)
    if not is_address and "://" in file[:20]:
        raise BadRequestError("Expected a film, got a web address.", hint=_HOW_TO_SEND)
    return take_file(unquote(path) if is_address else file, limit)
