"""The two public Gradio endpoints, and the guard over every event of the page."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import gradio as gr
from gradio.exceptions import InvalidPathError
from pydantic import ValidationError

from pneumonet.errors import BadRequestError, PneumoNetError
from pneumonet.finding import Finding
from pneumonet.language import ENGLISH, Language
from pneumonet.rendering import overlay, overlays, png
from pneumonet.web.answers import fault, log_refusal, milliseconds_since, refusals_logged
from pneumonet.web.languages import language_asked
from pneumonet.web.request_id import new_request_id
from pneumonet.web.service import Drawn, Service
from pneumonet.web.tracing import trace_of
from pneumonet.web.uploads import outputs, take_file

_HOW_TO_SEND: Final = (
    'Post the file to /gradio_api/upload first, then send {"path": <what it answered>, '
    '"meta": {"_type": "gradio.FileData"}}; gradio_client\'s handle_file does both.'
)


def as_gradio_error(error: PneumoNetError, request_id: str, language: Language) -> Any:
    """Return an error as Gradio shows it: a sentence, what to do, the code and the request id."""
    meta = language("code {code}, request {request}", code=error.code, request=request_id)
    message = f"{language(error.told)} ({meta})"
    return gr.Error(" ".join(message.split()), title=language("No answer"), print_exception=False)


def add_endpoints(service: Service) -> None:
    """Add the public endpoints `/predict` and `/explain` to the Blocks being built."""

    async def predict(file: Any, request: gr.Request, force: Any = False) -> tuple[dict[str, Any], dict[str, Any]]:
        answer, picture = await _answer(service, file, force, request, lambda finding: png(overlay(finding)))
        return answer, _file_data(outputs.put(picture, "overlay.png"))

    async def explain(file: Any, request: gr.Request, force: Any = False) -> dict[str, Any]:
        answer, maps = await _answer(service, file, force, request, overlays)
        return answer | {"maps": maps}

    film = gr.File(label="chest film: JPEG, PNG, TIFF, WebP, BMP or DICOM", visible=False)
    forced = gr.Checkbox(label="answer a film that would be refused", value=False, visible=False)
    answer = gr.JSON(label="finding", visible=False)
    picture = gr.Image(label="heatmap laid over the film", visible=False)
    # Without Gradio's own processing nothing is copied to disk and wrong values reach a handler that can explain them.
    options = {"preprocess": False, "postprocess": False, "concurrency_limit": None, "show_progress": "hidden"}
    gr.Button(visible=False).click(
        predict,
        [film, forced],
        [answer, picture],
        api_name="predict",
        api_description="Classify a chest film; returns the finding and the heatmap laid over the film.",
        **options,
    )
    gr.Button(visible=False).click(
        explain,
        [film, forced],
        answer,
        api_name="explain",
        api_description="Classify a chest film; returns the finding and each heatmap, by source and class.",
        **options,
    )


async def _answer(
    service: Service, file: Any, force: Any, request: gr.Request, draw: Callable[[Finding], Drawn]
) -> tuple[dict[str, Any], Drawn]:
    request_id, started, language = new_request_id(), time.perf_counter(), language_asked(request)
    try:
        with refusals_logged(request_id, "gradio"):
            if not isinstance(force, bool) and force is not None:
                raise BadRequestError("Expected `force` to be true or false.")
            data = take_file(_path_of(file), service.settings.max_upload_bytes)
        finding, drawn = await service.answer(
            data, draw=draw, request_id=request_id, door="gradio", force=bool(force), trace=trace_of(request)
        )
    except PneumoNetError as error:
        raise as_gradio_error(error, request_id, language) from None
    return finding.answer(request_id, milliseconds_since(started), language), drawn


def _path_of(file: Any) -> str | None:
    if file is None:
        return None
    path = file.get("path") if isinstance(file, dict) else None
    if not isinstance(path, str):
        raise BadRequestError("Expected an uploaded file.", hint=_HOW_TO_SEND)
    return path


def _file_data(path: str) -> dict[str, Any]:
    return {"path": path, "orig_name": "overlay.png", "mime_type": "image/png", "meta": {"_type": "gradio.FileData"}}


def guard(page: Any) -> None:
    """Make every event of a page fail in words, and keep its callers' values out of the log.

    Gradio prints the traceback of a failed event with the value that made it fail, a file's path or a whole picture,
    and answers with `null`.

    Args:
        page: A gr.Blocks.
    """
    process: Callable[..., Awaitable[Any]] = page.process_api

    async def guarded(block_fn: Any, inputs: list[Any], **options: Any) -> Any:
        request_id, started = new_request_id(), time.perf_counter()
        block_fn = page.fns[block_fn] if isinstance(block_fn, int) else block_fn
        try:
            return await process(block_fn=block_fn, inputs=_complete(block_fn, inputs), **options)
        except gr.Error as error:
            error.print_exception = False
            raise
        except (PneumoNetError, InvalidPathError, ValidationError) as error:
            known = error if isinstance(error, PneumoNetError) else _no_upload()
            log_refusal(request_id, "gradio", known.code, started)
        except Exception as error:
            known = fault(error, request_id, "gradio", started)
        finally:
            _forget_values(options.get("state"), block_fn)
        raise as_gradio_error(known, request_id, _language(options.get("request")))

    page.process_api = guarded


def _no_upload() -> PneumoNetError:
    return BadRequestError("Expected an uploaded file.", hint=_HOW_TO_SEND)


def _language(request: Any) -> Language:
    try:
        return language_asked(request)
    except AttributeError:
        # Gradio hands on whatever it has for a request, and sometimes nothing.
        return ENGLISH


def _forget_values(state: Any, block_fn: Any) -> None:
    # Gradio keeps the last value of each component for thousands of sessions, for deep links, which are closed here.
    for block in (*block_fn.inputs, *block_fn.outputs) if state is not None else ():
        state.config_values.get(block._id, {}).get("props", {}).pop("value", None)


def _complete(block_fn: Any, inputs: list[Any]) -> list[Any]:
    """Return an event's inputs with the defaults of those left out, none of them a file on another server."""
    if _names_web_address(inputs):
        # Gradio would fetch it: this server asks nothing of others.
        raise BadRequestError("Expected an uploaded file, got a web address.", hint=_HOW_TO_SEND)
    return inputs + [getattr(block, "value", None) for block in block_fn.inputs[len(inputs) :]]


def _names_web_address(value: Any) -> bool:
    if isinstance(value, dict):
        path = str(value.get("path", "")).lower()
        return path.startswith(("http:", "https:")) or any(map(_names_web_address, value.values()))
    return isinstance(value, list) and any(map(_names_web_address, value))
