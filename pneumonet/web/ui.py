"""The page: what a visitor sees, and what each of its events does."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import gradio as gr

from pneumonet.errors import (
    AdmissionError,
    BadRequestError,
    EmptyFileError,
    NoFileError,
    PneumoNetError,
)
from pneumonet.finding import Finding
from pneumonet.language import Language, said
from pneumonet.reading import ReadingLimits, read_radiograph
from pneumonet.web import installing, view
from pneumonet.web.answers import fault, milliseconds_since, refusals_logged
from pneumonet.web.endpoints import add_endpoints
from pneumonet.web.examples import Example, load_examples
from pneumonet.web.held import HELD_MINUTES, Answered, HeldFilm, HeldFilms, new_token
from pneumonet.web.languages import language_asked
from pneumonet.web.reporting import REPORT_ROUTE, without_pixels
from pneumonet.web.request_id import new_request_id
from pneumonet.web.service import Service
from pneumonet.web.tracing import trace_of
from pneumonet.web.translating import TranslatedBlocks
from pneumonet.web.uploads import take_file


class Page:
    """The page's events.

    Each may be called raw by a stranger: a film is reached by the path of its upload only, and that path by whoever
    uploaded it.
    """

    def __init__(self, service: Service, examples: tuple[Example, ...]) -> None:
        """Bind the events to the service that answers and the examples that are offered."""
        self.service, self.examples, self.films = service, examples, HeldFilms()
        self._limits = ReadingLimits.of(service.settings)

    async def take(self, path: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Take an upload, hold it, and show it."""
        request_id, visitor, language, film = new_request_id(), _visitor(request), language_asked(request), None
        shown, html = "", view.words("placeholder", language)
        try:
            with refusals_logged(request_id, "page"):
                film = self._film(visitor, path)
                shown = await self._preview(film, language)
        except Exception as error:
            html = self._failure(error, request_id, language)
        if self._is_stale(visitor, film):
            return (gr.skip(),) * 4
        # Whoever was quick to ask for the answer sees that instead.
        return shown, *((gr.skip(),) * 3 if film and self.films.asked(visitor) else (html, *_buttons()))

    async def forget(self, request: gr.Request) -> tuple[Any, ...]:
        """Forget the visitor's film and its answer."""
        await self.leave(request)
        return "", view.words("placeholder", language_asked(request)), *_buttons()

    async def said_again(self, request: gr.Request) -> tuple[Any, Any]:
        """Return the preview and the result that the visitor sees, in the language that was just chosen."""
        visitor, language = _visitor(request), language_asked(request)
        film, answered = self.films.get(visitor), self.films.last_answer(visitor)
        if film is None:
            return "", view.words("placeholder", language)
        if answered is None and self.films.asked(visitor):
            # Either the answer is on its way, and will come in its own words, or it failed and the words are gone.
            return await self._preview(film, language), gr.skip()
        shown = await self._preview(film, language)
        if answered is None:
            return shown, view.words("placeholder", language)
        token, said_of_it = answered
        reports = self._report_path(token)
        html = await self.service.previews.run(lambda: self._shown_again(said_of_it, reports, language))
        return (shown, html) if self.films.get(visitor) is film else (gr.skip(), gr.skip())

    def _shown_again(self, answered: Answered, reports: str, language: Language) -> str:
        if isinstance(answered.outcome, AdmissionError):
            return view.failure(answered.outcome, answered.request_id, reports, language)
        film = read_radiograph(answered.data, limits=self._limits)
        finding, config = replace(answered.outcome, film=film), self.service.model.snapshot.config
        return view.result(finding, config, answered.request_id, answered.duration_ms, reports, language)

    async def leave(self, request: gr.Request) -> None:
        """Forget the film of a visitor who closes the page."""
        self.films.drop(_visitor(request))

    async def analyse(self, path: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Answer the visitor's film."""
        async for update in self._analyse(path, request, force=False):
            yield update

    async def analyse_anyway(self, path: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Answer the visitor's film although it was refused."""
        async for update in self._analyse(path, request, force=True):
            yield update

    async def try_example(self, index: int, request: gr.Request) -> AsyncIterator[tuple[Any, ...]]:
        """Hold an example in place of the visitor's film, show it, and answer it."""
        example, visitor, request_id, film = self.examples[index], _visitor(request), new_request_id(), None
        language = language_asked(request)
        try:
            with refusals_logged(request_id, "page"):
                film = HeldFilm(f"example:{index}", example.read(), example.title)
                self.films.put(visitor, film)
                shown = await self._preview(film, language)
        except Exception as error:
            yield None, "", self._failure(error, request_id, language), *_buttons()
            return
        if self._is_stale(visitor, film):
            yield (gr.skip(),) * 5
            return
        yield None, shown, view.words("working", language), *_buttons(busy=True)
        async for update in self._analyse(None, request, force=False):
            # The box was emptied above: what lies there now is the visitor's next film.
            yield gr.skip(), gr.skip(), *update

    async def _analyse(self, path: str | None, request: gr.Request, *, force: bool) -> AsyncIterator[tuple[Any, ...]]:
        request_id, visitor, language = new_request_id(), _visitor(request), language_asked(request)
        try:
            with refusals_logged(request_id, "page"):
                film = self._film(visitor, path)
        except Exception as error:
            yield self._failure(error, request_id, language), *_buttons()
            return
        yield view.words("working", language), *_buttons(busy=True)
        with self.films.kept(visitor):
            try:
                html, refused = await self._answer(film, force, request_id, request), False
            except AdmissionError as error:
                reports = self._offered(visitor, film, error, request_id)
                html, refused = view.failure(error, request_id, reports, language), True
            except Exception as error:
                html, refused = self._failure(error, request_id, language), False
            stale = self._is_stale(visitor, film)
        yield (gr.skip(),) * 3 if stale else (html, *_buttons(refused=refused))

    def _is_stale(self, visitor: str, film: HeldFilm | None) -> bool:
        # The visitor has meanwhile taken the film away or chosen another: nothing of it may stand beside that.
        return film is not None and self.films.get(visitor) is not film

    def _film(self, visitor: str, path: str | None) -> HeldFilm:
        held = self.films.get(visitor)
        if path is None:
            if held is None or not held.title:
                raise NoFileError(
                    said("No film has been chosen yet."), hint=said("Choose a chest X-ray first, or try an example.")
                )
            return held
        # Uploading and pressing the button may come at once; one of them takes the file, the other finds it held.
        if held is None or held.path != path:
            self.films.drop(visitor)
            held = HeldFilm(path, _taken(path))
            self.films.put(visitor, held)
        return held

    async def _preview(self, film: HeldFilm, language: Language) -> str:
        def draw() -> str:
            return view.preview(read_radiograph(film.data, limits=self._limits), film.title, language)

        return await self.service.previews.run(draw)

    async def _answer(self, film: HeldFilm, force: bool, request_id: str, request: gr.Request) -> str:
        started, token = time.perf_counter(), new_token()
        language, service = language_asked(request), self.service

        def draw(finding: Finding) -> tuple[str, float]:
            duration_ms, reports = milliseconds_since(started), self._report_path(token)
            config = service.model.snapshot.config
            return view.result(finding, config, request_id, duration_ms, reports, language), duration_ms

        finding, (html, duration_ms) = await service.answer(
            film.data, draw=draw, request_id=request_id, door="page", force=force, trace=trace_of(request)
        )
        # Where the film has gone meanwhile nothing is offered, and nothing of its answer is shown.
        self._offered(_visitor(request), film, finding, request_id, duration_ms, token)
        return html

    def _offered(
        self,
        visitor: str,
        film: HeldFilm,
        outcome: Finding | AdmissionError,
        request_id: str,
        duration_ms: float = 0.0,
        token: str | None = None,
    ) -> str:
        """Offer reports of an answer for as long as its film is held; returns the path beneath which they are."""
        created = datetime.now(timezone.utc)
        answered = Answered(film.data, without_pixels(outcome), request_id, created, duration_ms)
        return self._report_path(self.films.answered(visitor, film, answered, token))

    def _report_path(self, token: str | None) -> str:
        return f"{self.service.settings.root_path}{REPORT_ROUTE}/{token}" if token else ""

    def _failure(self, error: Exception, request_id: str, language: Language) -> str:
        known = error if isinstance(error, PneumoNetError) else fault(error, request_id, "page")
        return view.failure(known, request_id, language=language)


def build_page(service: Service) -> gr.Blocks:
    """Build the page, with the public endpoints beside it.

    Args:
        service: Answers the films.
    """
    page = Page(service, load_examples())
    most = service.settings.max_upload_bytes
    with TranslatedBlocks(title="PneumoNet", analytics_enabled=False) as blocks:
        _text(blocks, "header", "page-header")
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="input-column", min_width=300):
                _text(blocks, "upload", "upload-heading", max_bytes=most)
                file = gr.File(show_label=False, elem_id="film-file", height=150)
                blocks.say(file, lambda language: {"label": language("Chest X-ray")})
                _text(blocks, "upload_notice", "upload-notice", max_bytes=most)
                preview = gr.HTML(elem_id="preview", apply_default_css=False)
                analyse = gr.Button(variant="primary", elem_id="analyse")
                blocks.say(analyse, lambda language: {"value": language(view.ANALYSE)})
            with gr.Column(elem_id="result-column", min_width=300):
                result = _text(blocks, "placeholder", "result")
                anyway = gr.Button(elem_id="answer-anyway", visible=False)
                blocks.say(anyway, lambda language: {"value": language(view.ANSWER_ANYWAY)})
                _text(blocks, "notes", "notes", held_minutes=HELD_MINUTES)
            with gr.Column(elem_id="examples-column", min_width=300):
                buttons = _example_buttons(blocks, page.examples)
        _wire(page, file, preview, result, analyse, anyway, buttons)
        _wire_language(page, blocks, preview, result)
        add_endpoints(service)
        blocks.unload(page.leave)
    return blocks


def _text(blocks: TranslatedBlocks, name: str, elem_id: str, **values: object) -> gr.HTML:
    text = gr.HTML(elem_id=elem_id, apply_default_css=False)
    blocks.say(text, lambda language: {"value": view.words(name, language, **values)})
    return text


def _example_buttons(blocks: TranslatedBlocks, examples: tuple[Example, ...]) -> list[gr.Button]:
    if not examples:
        return []
    _text(blocks, "examples", "examples-heading")
    with gr.Row(elem_id="examples"):
        return [_example_button(blocks, index, example) for index, example in enumerate(examples)]


def _example_button(blocks: TranslatedBlocks, index: int, example: Example) -> gr.Button:
    button = gr.Button(elem_id=f"example-{index}", elem_classes="pn-example")
    blocks.say(button, lambda language: {"value": f"{language(example.title)}\n{language(example.note)}"})
    return button


def _wire(
    page: Page, file: gr.File, preview: gr.HTML, result: gr.HTML, analyse: gr.Button, anyway: gr.Button, examples: Any
) -> None:
    # Nothing here is an API: the two public endpoints are, and the service has the one queue.
    options: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
    # The next film may be asked about while the last one's answer is still on its way: a stale run shows nothing.
    options["trigger_mode"] = "multiple"
    shown = [preview, result, analyse, anyway]
    file.upload(page.take, file, shown, **options)
    file.clear(page.forget, None, shown, **options)
    analyse.click(page.analyse, file, shown[1:], **options)
    anyway.click(page.analyse_anyway, file, shown[1:], **options)
    for index, button in enumerate(examples):
        button.click(page.try_example, gr.State(index), [file, *shown], **options)


def _wire_language(page: Page, blocks: TranslatedBlocks, preview: gr.HTML, result: gr.HTML) -> None:
    """Change the language of the page as it stands: page.js presses the button after the visitor's choice."""
    standing = [component for component in blocks.said if component is not result]

    async def speak(request: gr.Request) -> tuple[Any, ...]:
        language = language_asked(request)
        return *blocks.updates(standing, language), *await page.said_again(request)

    changed = gr.Button(elem_id="language-changed", visible="hidden")
    changed.click(
        speak,
        None,
        [*standing, preview, result],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=None,
        trigger_mode="always_last",
    )


def page_options() -> dict[str, Any]:
    """Return what `gr.mount_gradio_app` needs to dress the page."""
    thumbnails = [(index, example.thumbnail()) for index, example in enumerate(load_examples())]
    css = (view.PAGE_FOLDER / "page.css").read_text(encoding="utf-8") + view.example_styles(thumbnails)
    script = (view.PAGE_FOLDER / "page.js").read_text(encoding="utf-8")
    head = f"{installing.head()}<style>{css}</style><script>{script}</script>"
    # Gradio's footer speaks the browser's language, whatever the page's, and its panel for programmers has buttons
    # without a name and words of too little contrast: `GET /api` and the README say what it says.
    return {"theme": _theme(), "head": head, "footer_links": []}


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
        raise NoFileError(said("The film is no longer held."), hint=said("Choose it again.")) from error


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash or "")


def _buttons(*, busy: bool = False, refused: bool = False) -> tuple[Any, Any]:
    """Return the updates of [Analyse] and [Answer anyway]."""
    return gr.update(interactive=not busy), gr.update(visible=refused, interactive=not busy)
