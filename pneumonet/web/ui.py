"""The page: what a visitor sees, and what each of its events does."""

import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any, Final

import anyio.to_thread
import gradio as gr

from pneumonet.errors import (
    AdmissionError,
    BadRequestError,
    EmptyFileError,
    NoFileError,
    PneumoNetError,
)
from pneumonet.finding import Finding
from pneumonet.reading import ReadingLimits, read_radiograph
from pneumonet.web import installing, view
from pneumonet.web.answers import milliseconds_since, refusals_logged, unforeseen
from pneumonet.web.endpoints import add_endpoints
from pneumonet.web.examples import Example, load_examples
from pneumonet.web.held import HELD_MINUTES, Answered, HeldFilm, HeldFilms
from pneumonet.web.reporting import REPORT_ROUTE, without_pixels
from pneumonet.web.request_id import new_request_id
from pneumonet.web.service import Service
from pneumonet.web.uploads import take_file

# A preview is decoded outside the service's queue, so it has a bound of its own.
_PREVIEWS_AT_ONCE: Final = 2


class Page:
    """The page's events.

    Each may be called raw by a stranger: a film is reached by the path of its upload only, and that path by whoever
    uploaded it.
    """

    def __init__(self, service: Service, examples: tuple[Example, ...]) -> None:
        """Bind the events to the service that answers and the examples that are offered."""
        self.service, self.examples, self.films = service, examples, HeldFilms()
        self._limits = ReadingLimits(
            max_bytes=service.settings.max_upload_bytes, max_pixels=service.settings.max_pixels
        )

    async def take(self, path: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Take an upload, hold it, and show it."""
        request_id, visitor, film = new_request_id(), _visitor(request), None
        shown, html = "", view.words("placeholder")
        try:
            with refusals_logged(request_id, "page"):
                film = self._film(visitor, path)
                shown = await self._preview(film)
        except Exception as error:
            html = self._failure(error, request_id)
        if self._is_stale(visitor, film):
            return (gr.skip(),) * 4
        # Whoever was quick to ask for the answer sees that instead.
        return shown, *((gr.skip(),) * 3 if film and self.films.asked(visitor) else (html, *_buttons()))

    async def forget(self, request: gr.Request) -> tuple[Any, ...]:
        """Forget the visitor's film and its answer."""
        await self.leave(request)
        return "", view.words("placeholder"), *_buttons()

    async def leave(self, request: gr.Request) -> None:
        """Forget the film of a visitor who closes the page."""
        self.films.drop(_visitor(request))

    async def analyse(self, path: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Answer the visitor's film."""
        async for update in self._analyse(path, _visitor(request), force=False):
            yield update

    async def analyse_anyway(self, path: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Answer the visitor's film although it was refused."""
        async for update in self._analyse(path, _visitor(request), force=True):
            yield update

    async def try_example(self, index: int, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Hold an example in place of the visitor's film, show it, and answer it."""
        example, visitor, request_id, film = self.examples[index], _visitor(request), new_request_id(), None
        try:
            with refusals_logged(request_id, "page"):
                film = HeldFilm(f"example:{index}", example.read(), example.title)
                self.films.put(visitor, film)
                shown = await self._preview(film)
        except Exception as error:
            yield None, "", self._failure(error, request_id), *_buttons()
            return
        if self._is_stale(visitor, film):
            yield (gr.skip(),) * 5
            return
        yield None, shown, view.words("working"), *_buttons(busy=True)
        async for update in self._analyse(None, visitor, force=False):
            # The box was emptied above: what lies there now is the visitor's next film.
            yield gr.skip(), gr.skip(), *update

    async def _analyse(self, path: str | None, visitor: str, *, force: bool) -> AsyncIterator[tuple[Any, ...]]:
        request_id = new_request_id()
        try:
            with refusals_logged(request_id, "page"):
                film = self._film(visitor, path)
        except Exception as error:
            yield self._failure(error, request_id), *_buttons()
            return
        yield view.words("working"), *_buttons(busy=True)
        with self.films.kept(visitor):
            try:
                html, refused = await self._answer(visitor, film, force, request_id), False
            except AdmissionError as error:
                reports = self._offered(visitor, film, error, request_id)
                html, refused = view.failure(error, request_id, reports), True
            except Exception as error:
                html, refused = self._failure(error, request_id), False
            stale = self._is_stale(visitor, film)
        yield (gr.skip(),) * 3 if stale else (html, *_buttons(refused=refused))

    def _is_stale(self, visitor: str, film: HeldFilm | None) -> bool:
        # The visitor has meanwhile taken the film away or chosen another: nothing of it may stand beside that.
        return film is not None and self.films.get(visitor) is not film

    def _film(self, visitor: str, path: str | None) -> HeldFilm:
        held = self.films.get(visitor)
        if path is None:
            if held is None or not held.title:
                raise NoFileError("No film has been chosen yet.", hint="Choose a chest X-ray first, or try an example.")
            return held
        # Uploading and pressing the button may come at once; one of them takes the file, the other finds it held.
        if held is None or held.path != path:
            self.films.drop(visitor)
            held = HeldFilm(path, _taken(path))
            self.films.put(visitor, held)
        return held

    async def _preview(self, film: HeldFilm) -> str:
        def draw() -> str:
            return view.preview(read_radiograph(film.data, limits=self._limits), film.title)

        return await anyio.to_thread.run_sync(draw)

    async def _answer(self, visitor: str, film: HeldFilm, force: bool, request_id: str) -> str:
        started = time.perf_counter()
        finding = await self.service.answer(film.data, request_id=request_id, door="page", force=force)
        duration_ms = milliseconds_since(started)
        config, reports = self.service.model.snapshot.config, self._offered(visitor, film, finding, request_id)
        return await anyio.to_thread.run_sync(view.result, finding, config, request_id, duration_ms, reports)

    def _offered(self, visitor: str, film: HeldFilm, outcome: Finding | AdmissionError, request_id: str) -> str:
        """Offer reports of an answer for as long as its film is held; returns the path beneath which they are."""
        answered = Answered(film.data, without_pixels(outcome), request_id, datetime.now(timezone.utc))
        token = self.films.answered(visitor, film, answered)
        return f"{self.service.settings.root_path}{REPORT_ROUTE}/{token}" if token else ""

    def _failure(self, error: Exception, request_id: str) -> str:
        known = error if isinstance(error, PneumoNetError) else unforeseen(error, request_id)
        return view.failure(known, request_id)


def build_page(service: Service) -> gr.Blocks:
    """Build the page, with the public endpoints beside it.

    Args:
        service: Answers the films.
    """
    page = Page(service, load_examples())
    most = service.settings.max_upload_bytes
    limit = {"max_bytes": most, "megabytes": f"{most / 1_000_000:g}"}
    with gr.Blocks(title="PneumoNet", analytics_enabled=False) as blocks:
        gr.HTML(view.words("header"), elem_id="page-header", apply_default_css=False)
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="input-column", min_width=300):
                gr.HTML(view.words("upload", **limit), elem_id="upload-heading", apply_default_css=False)
                file = gr.File(label="Chest X-ray", show_label=False, elem_id="film-file", height=150)
                gr.HTML(view.words("upload_notice", **limit), elem_id="upload-notice", apply_default_css=False)
                preview = gr.HTML(elem_id="preview", apply_default_css=False)
                analyse = gr.Button("Analyse", variant="primary", elem_id="analyse")
            with gr.Column(elem_id="result-column", min_width=300):
                result = gr.HTML(view.words("placeholder"), elem_id="result", apply_default_css=False)
                anyway = gr.Button("Answer anyway", elem_id="answer-anyway", visible=False)
                gr.HTML(view.words("notes", held_minutes=HELD_MINUTES), elem_id="notes", apply_default_css=False)
            with gr.Column(elem_id="examples-column", min_width=300):
                buttons = _example_buttons(page.examples)
        _wire(page, file, preview, result, analyse, anyway, buttons)
        add_endpoints(service)
        blocks.unload(page.leave)
    return blocks


def _example_buttons(examples: tuple[Example, ...]) -> list[gr.Button]:
    if not examples:
        return []
    gr.HTML(view.words("examples"), elem_id="examples-heading", apply_default_css=False)
    with gr.Row(elem_id="examples"):
        return [
            gr.Button(f"{example.title}\n{example.note}", elem_id=f"example-{index}", elem_classes="pn-example")
            for index, example in enumerate(examples)
        ]


def _wire(
    page: Page, file: gr.File, preview: gr.HTML, result: gr.HTML, analyse: gr.Button, anyway: gr.Button, examples: Any
) -> None:
    # Nothing here is an API: the two public endpoints are, and the service has the one queue.
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    # The next film may be asked about while the last one's answer is still on its way: a stale run shows nothing.
    options["trigger_mode"] = "multiple"
    shown = [preview, result, analyse, anyway]
    file.upload(page.take, file, shown, **(options | {"concurrency_limit": _PREVIEWS_AT_ONCE}))
    file.clear(page.forget, None, shown, **options)
    analyse.click(page.analyse, file, shown[1:], **options)
    anyway.click(page.analyse_anyway, file, shown[1:], **options)
    for index, button in enumerate(examples):
        button.click(page.try_example, gr.State(index), [file, *shown], **options)


def page_options() -> dict[str, Any]:
    """Return what `gr.mount_gradio_app` needs to dress the page."""
    thumbnails = [(index, example.thumbnail()) for index, example in enumerate(load_examples())]
    css = (view.PAGE_FOLDER / "page.css").read_text(encoding="utf-8") + view.example_styles(thumbnails)
    script = (view.PAGE_FOLDER / "page.js").read_text(encoding="utf-8")
    head = f"{installing.head()}<style>{css}</style><script>{script}</script>"
    return {"theme": _theme(), "head": head, "footer_links": ["api"]}


def _theme() -> gr.themes.Base:
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica", "Arial", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        font=fonts,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="var(--pn-page)",
        body_background_fill_dark="var(--pn-page)",
        button_primary_background_fill="var(--pn-accent)",
        button_primary_background_fill_dark="var(--pn-accent)",
        button_primary_background_fill_hover="var(--pn-accent-hover)",
        button_primary_background_fill_hover_dark="var(--pn-accent-hover)",
        button_primary_text_color="var(--pn-on-accent)",
        button_primary_text_color_dark="var(--pn-on-accent)",
    )


def _taken(path: str) -> bytes:
    try:
        return take_file(path)
    except EmptyFileError:
        return b""
    except BadRequestError as error:
        raise NoFileError("The film is no longer held.", hint="Choose it again.") from error


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _buttons(*, busy: bool = False, refused: bool = False) -> tuple[Any, Any]:
    """Return the updates of [Analyse] and [Answer anyway]."""
    return gr.update(interactive=not busy), gr.update(visible=refused, interactive=not busy)
