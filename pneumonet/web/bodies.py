"""Bodies of requests: read in memory, within bounds, and understood or refused in words."""

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from pneumonet.errors import BadRequestError, EmptyFileError, NoFileError
from pneumonet.web.answers import too_large

# What may surround the film in a body: boundaries, headers, the other fields.
_ENVELOPE_BYTES: Final = 64 * 1024
# How much of a body that is too large is read to the end, so that the connection lives on.
_DRAINED_BYTES: Final = 64_000_000
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Question:
    """What a caller of POST /predict asks."""

    film: bytes
    disable_cam: bool = False
    force: bool = False
    frame: int | None = None


async def read_body(request: Request, limit: int, film_limit: int) -> AsyncGenerator[bytes, None]:
    """Yield a body's chunks, and fail once they are more than `limit` bytes, declared or counted.

    Raises:
        FileTooLargeError: After the rest was read and dropped, within reason, so that the connection stays usable.
    """
    declared = request.headers.get("content-length", "")
    excess = int(declared) > limit if declared.isdecimal() else False
    # A caller who asked first is told before it sends anything.
    if excess and (request.headers.get("expect") or int(declared) > _DRAINED_BYTES):
        raise too_large(film_limit)
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > _DRAINED_BYTES + limit:
            break
        if not excess and count <= limit:
            yield chunk
    if excess or count > limit:
        raise too_large(film_limit)


class _InMemoryParser(MultiPartParser):
    # Starlette rolls a part over to a file on disk beyond this many bytes; 0 is never. A film stays in memory.
    spool_max_size = 0


async def read_form(request: Request, film_limit: int, body_limit: int | None = None) -> FormData:
    """Read a multipart form in memory.

    Args:
        request: The request.
        film_limit: The most bytes of a film, as the error tells it.
        body_limit: The most bytes of the whole body; one film and its envelope by default.

    Raises:
        BadRequestError: If the form is malformed.
        FileTooLargeError: If the body is too large.
    """
    chunks = read_body(request, body_limit or film_limit + _ENVELOPE_BYTES, film_limit)
    try:
        return await _InMemoryParser(request.headers, chunks, max_files=100, max_fields=100).parse()
    except MultiPartException as error:
        # The rest of the body goes too: the connection lives on, and a film too large is told as that.
        async for _ in chunks:
            pass
        raise BadRequestError(f"The multipart form is malformed: {error.message}") from error


async def read_question(request: Request, limit: int) -> Question:
    """Read what a caller of POST /predict asks.

    Raises:
        InputError: If the request is malformed, has no film, or one of too many bytes.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    fields: Mapping[str, object]
    if kind == "multipart/form-data":
        film, fields = await _of_form(await read_form(request, limit))
    elif kind == "application/json":
        film, fields = await _of_json(request, limit)
    else:
        async for _ in read_body(request, limit + _ENVELOPE_BYTES, limit):
            pass
        if not kind:
            raise NoFileError("The request holds no film.")
        raise BadRequestError("Expected the content type multipart/form-data or application/json.")
    if not film:
        raise EmptyFileError("The file is empty: it has no bytes.")
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
    encoded_limit = 4 * (limit + 2) // 3
    body = b"".join([chunk async for chunk in read_body(request, encoded_limit + _ENVELOPE_BYTES, limit)])
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequestError("The body is not valid JSON.") from error
    if not isinstance(fields, dict):
        raise BadRequestError("Expected the JSON body to be an object with the field `file_data`.")
    data = fields.get("file_data")
    if data is None:
        raise NoFileError("The JSON body has no field `file_data`.")
    if not isinstance(data, str):
        raise BadRequestError("Expected `file_data` to be a string of base64 or a data URI.")
    return _decoded(data), fields


def _decoded(data: str) -> bytes:
    if data[:5].lower() == "data:":
        head, comma, data = data.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise BadRequestError("Expected the data URI in `file_data` to be of the form data:...;base64,....")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError("Expected `file_data` to be base64, but it does not decode.") from error


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
