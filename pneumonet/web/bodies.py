"""Bodies of requests: read in memory, within bounds, and understood or refused in words."""

import base64
import binascii
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pneumonet.errors import BadRequestError, BusyError, EmptyFileError, NoFileError, PneumoNetError
from pneumonet.language import said
from pneumonet.web.answers import too_large
from pneumonet.web.metrics import HELD_BYTES

# What may surround the film in a body: boundaries, headers, the other fields.
_ENVELOPE_BYTES: Final = 64 * 1024
# How much of a body that is too large is read to the end, so that the connection lives on.
_DRAINED_BYTES: Final = 64_000_000
# A film of 10 MB within this is 1.3 Mbit/s: what is slower is stalled, or means to hold the server up.
_BODY_SECONDS: Final = 60.0
# All the bodies that arrive at one time, whatever the door.
_IN_FLIGHT_BYTES: Final = 200_000_000
_WHITE: Final = b" \t\r\n\f\v"
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Question:
    """What a caller of POST /predict asks."""

    film: bytes
    disable_cam: bool = False
    force: bool = False
    frame: int | None = None


class _InFlight:
    count = 0


HELD_BYTES.labels("bodies").set_function(lambda: _InFlight.count)


async def read_body(request: Request, limit: int, excess_error: PneumoNetError) -> AsyncGenerator[bytes, None]:
    """Yield a body's chunks, and fail once they are more than `limit` bytes, declared or counted.

    Raises:
        PneumoNetError: `excess_error`, after the rest was read and dropped, within reason, so that the connection
            stays usable.
        BadRequestError: If the body does not arrive in time.
        BusyError: If too many bytes arrive at once, over all requests.
    """
    declared = request.headers.get("content-length", "")
    excess = int(declared) > limit if declared.isdecimal() else False
    # A caller who asked first is told before it sends anything.
    if excess and (request.headers.get("expect") or int(declared) > _DRAINED_BYTES):
        raise excess_error
    count = held = 0
    try:
        async with aclosing(_in_time(request)) as chunks:
            async for chunk in chunks:
                count += len(chunk)
                if count > _DRAINED_BYTES + limit:
                    break
                if excess or count > limit:
                    continue
                if _InFlight.count + len(chunk) > _IN_FLIGHT_BYTES:
                    raise BusyError(said("Too many films wait to be analysed."))
                held += len(chunk)
                _InFlight.count += len(chunk)
                yield chunk
    finally:
        _InFlight.count -= held
    if excess or count > limit:
        raise excess_error


async def _in_time(request: Request) -> AsyncGenerator[bytes, None]:
    deadline = time.monotonic() + _BODY_SECONDS
    async with aclosing(request.stream()) as stream:
        while True:
            try:
                with anyio.fail_after(max(0.0, deadline - time.monotonic())):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise BadRequestError(f"The body did not arrive within {_BODY_SECONDS:g} seconds.") from error
            yield chunk


class _InMemoryParser(MultiPartParser):
    # Starlette rolls a part over to a file on disk beyond this many bytes; 0 is never. A film stays in memory.
    spool_max_size = 0


async def read_form(request: Request, film_limit: int) -> FormData:
    """Read a multipart form in memory.

    Args:
        request: The request.
        film_limit: The most bytes of a film, as the error tells it.

    Raises:
        BadRequestError: If the body is no form, or a malformed one.
        FileTooLargeError: If the body is too large.
    """
    async with aclosing(read_body(request, film_limit + _ENVELOPE_BYTES, too_large(film_limit))) as chunks:
        try:
            if _kind(request) != "multipart/form-data":
                raise MultiPartException("the content type is not multipart/form-data.")
            return await _InMemoryParser(request.headers, chunks, max_files=100, max_fields=100).parse()
        except MultiPartException as error:
            # The rest of the body goes too: the connection lives on, and a film too large is told as that.
            async for _ in chunks:
                pass
            raise BadRequestError(f"The multipart form is malformed: {error.message}") from error


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def read_question(request: Request, limit: int) -> Question:
    """Read what a caller of POST /predict asks.

    Raises:
        InputError: If the request is malformed, has no film, or one of too many bytes.
    """
    kind = _kind(request)
    fields: Mapping[str, object]
    if kind == "multipart/form-data":
        film, fields = await _of_form(await read_form(request, limit))
    elif kind == "application/json":
        film, fields = await _of_json(request, limit)
    else:
        async for _ in read_body(request, limit + _ENVELOPE_BYTES, too_large(limit)):
            pass
        if not kind:
            raise NoFileError(said("No file was sent."))
        raise BadRequestError("Expected the content type multipart/form-data or application/json.")
    if not film:
        raise EmptyFileError(said("The file is empty."))
    if len(film) > limit:
        raise too_large(limit)
    return Question(film, _flag(fields, "disable_cam"), _flag(fields, "force"), _frame(fields))


async def _of_form(form: FormData) -> tuple[bytes, dict[str, object]]:
    films = form.getlist("file")
    if not films:
        raise NoFileError("The form has no field `file`.")
    if len(films) > 1:
        raise BadRequestError(f"Expected one field `file`, got {len(films)}.", hint="Send one film a request.")
    if not isinstance(films[0], UploadFile):
        if not films[0]:
            raise NoFileError("The field `file` is empty.")
        raise BadRequestError("Expected the field `file` to be a file, got text.")
    fields: dict[str, object] = {}
    for name in ("disable_cam", "force", "frame"):
        value = form.get(name)
        if isinstance(value, str) and value.strip():
            text = value.strip().lower()
            fields[name] = _whole(text) if name == "frame" else _FLAGS.get(text, text)
        elif value:
            fields[name] = value
    return await films[0].read(), fields


def _whole(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


async def _of_json(request: Request, limit: int) -> tuple[bytes, Mapping[str, object]]:
    fields = await read_json(request, limit, "file_data")
    data = fields.pop("file_data", None)
    if data is None:
        raise NoFileError("The JSON body has no field `file_data`.")
    if not isinstance(data, str):
        raise BadRequestError("Expected `file_data` to be a string of base64 or a data URI.")
    return await anyio.to_thread.run_sync(decoded, data, "file_data"), fields


async def read_json(request: Request, film_limit: int, film_field: str) -> dict[str, Any]:
    """Read a JSON object that holds little but a film.

    Args:
        request: The request.
        film_limit: The most bytes of a film, as the error tells it.
        film_field: The field, at any depth, whose text may be a film as base64.

    Raises:
        BadRequestError: If the body is no JSON object, or holds too much beside the film.
        FileTooLargeError: If the body is too large.
    """
    most = 4 * (film_limit + 2) // 3 + _ENVELOPE_BYTES
    body = b"".join([chunk async for chunk in read_body(request, most, too_large(film_limit))])
    return await anyio.to_thread.run_sync(_understood, body, film_field)


def _understood(body: bytes, film_field: str) -> dict[str, Any]:
    # Python's parser holds up every thread, for long where there are many values: all but the film must be small.
    film = re.search(rb'"%s"\s*:\s*"' % film_field.encode(), body) if len(body) > _ENVELOPE_BYTES else None
    film_bytes = body.find(b'"', film.end()) - film.end() if film else 0
    if len(body) - film_bytes > _ENVELOPE_BYTES:
        raise BadRequestError(f"The JSON body holds more than 64 kB beside the film in `{film_field}`.")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("The body is not valid JSON.") from error
    if not isinstance(fields, dict):
        raise BadRequestError(f"Expected the JSON body to be an object with the field `{film_field}`.")
    return fields


def decoded(data: str, field: str) -> bytes:
    """Return the bytes of base64 or of a data URI.

    Raises:
        BadRequestError: If it is neither; the error names the field.
    """
    if data[:5].lower() == "data:":
        head, comma, data = data.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise BadRequestError(f"Expected the data URI in `{field}` to be of the form data:...;base64,....")
    try:
        return base64.b64decode(data.encode("ascii").translate(None, _WHITE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(f"Expected `{field}` to be base64, but it does not decode.") from error


def _flag(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequestError(f"Expected `{name}` to be true or false.")


def _frame(fields: Mapping[str, object]) -> int | None:
    value = fields.get("frame")
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise BadRequestError("Expected `frame` to be a whole number from 0.")
