"""The page as a visitor meets it: films in, answers and refusals out, and nothing left behind."""

import asyncio
import base64
import gc
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.held import HeldFilms
from pneumonet.web.tidying import private_folder
from tests.e2e.conftest import HOSTILE_TITLE, Visit, analyse, answer, choose, expected, take_away
from tests.web.conftest import Running, serving, wait_until
from tests.web.test_bad_input import FILMS as BAD_FILMS

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("name", ["film.jpg", "deep.png", "SCAN.DCM", "IM0001"])
def test_a_film_reads_as_it_does_by_post(visit: Visit, site: Running, films: Path, name: str) -> None:
    shown = analyse(visit(), films / name)
    for words in expected(site, films / name):
        assert words in shown


def test_pressing_twice_answers_twice(visit: Visit, films: Path) -> None:
    page = visit()
    first = analyse(page, films / "film.jpg")
    assert analyse(page).splitlines()[:3] == first.splitlines()[:3]


def test_a_file_that_is_no_picture_is_told_in_words(visit: Visit, films: Path) -> None:
    page = visit()
    choose(page, films / "notes.txt")
    assert "unsupported_format" in page.inner_text("#result [role=alert] + p")
    assert "unsupported_format" in analyse(page)


@pytest.mark.parametrize("name", ["empty.png", "cut.jpg", "cut.dcm", "no-pixels.dcm", "huge.png"])
def test_a_film_that_cannot_be_read_is_told_in_sentences(visit: Visit, tmp_path: Path, name: str) -> None:
    code, _, make = BAD_FILMS[name]
    path = tmp_path / name
    path.write_bytes(make())
    page = visit()
    choose(page, path)
    for shown in (page.inner_text("#result"), analyse(page)):
        assert f"Code {code}, request" in shown
    message, hint = page.locator("#result [role=alert] > p").all_inner_texts()
    assert message.endswith(".")
    assert hint.endswith(".")


def test_the_next_film_is_answered_while_the_last_is_still_on_its_way(
    visit: Visit, site: Running, films: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, let_go, answer_film = threading.Event(), threading.Event(), site.service.answer

    async def slow_at_first(data: bytes, **options: Any) -> Any:
        if data == (films / "film.jpg").read_bytes():
            asked.set()
            while not let_go.is_set():
                await asyncio.sleep(0.02)
        return await answer_film(data, **options)

    words = expected(site, films / "other.png")
    page = visit()
    choose(page, films / "film.jpg")
    try:
        monkeypatch.setattr(site.service, "answer", slow_at_first)
        page.click("#analyse")
        page.wait_for_selector("#result .pn-working")
        assert asked.wait(10)
        take_away(page)
        page.wait_for_selector("#result .pn-empty")
        shown = analyse(page, films / "other.png")
    finally:
        let_go.set()
    assert words[1] in shown
    page.wait_for_timeout(1500)
    assert page.inner_text("#result") == shown
    assert page.is_enabled("#analyse")


def test_analyse_with_nothing_asks_for_a_film(visit: Visit, films: Path) -> None:
    page = visit()
    assert "No film has been chosen" in analyse(page)
    analyse(page, films / "film.jpg")
    take_away(page)
    page.wait_for_selector("#result .pn-empty")
    assert page.locator("#preview img").count() == 0
    assert "No film has been chosen" in analyse(page)


def test_a_file_over_the_limit_is_not_sent(visit: Visit, films: Path) -> None:
    page = visit()
    uploads = []
    page.on("request", lambda request: uploads.append(request.url) if "upload" in request.url else None)
    page.set_input_files("#film-file input[type=file]", films / "large.png")
    page.wait_for_selector("#too-large:visible")
    assert "larger than 10 MB" in page.inner_text("#too-large")
    assert uploads == []
    choose(page, films / "film.jpg")
    assert not page.is_visible("#too-large")
    for button in ("#analyse", "#example-1"):
        take_away(page)
        page.set_input_files("#film-file input[type=file]", films / "large.png")
        page.wait_for_selector("#too-large:visible")
        page.click(button)
        page.wait_for_selector("#too-large", state="hidden")
        page.wait_for_selector("#result [data-key]:not([data-key=working])")
        choose(page, films / "film.jpg")


def test_two_visitors_each_see_their_own(visit: Visit, site: Running, films: Path) -> None:
    pages = {name: visit() for name in ("film.jpg", "other.png")}
    for name, page in pages.items():
        choose(page, films / name)
    for page in pages.values():
        page.click("#analyse")
    shown = {name: answer(page) for name, page in pages.items()}
    for name in pages:
        for words in expected(site, films / name):
            assert words in shown[name]
    assert shown["film.jpg"] != shown["other.png"]


def test_an_example_is_answered_at_once_and_its_title_is_words(visit: Visit, site: Running, films: Path) -> None:
    page = visit()
    assert HOSTILE_TITLE in page.inner_text("#example-0")
    page.click("#example-0")
    page.wait_for_selector("#result .pn-result")
    assert expected(site, films / "film.jpg")[1] in answer(page)
    assert HOSTILE_TITLE in page.inner_text("#preview")
    assert page.locator("#preview b").count() == 0


def test_an_example_takes_the_place_of_an_upload(visit: Visit, films: Path) -> None:
    page = visit()
    choose(page, films / "other.png")
    page.click("#example-0")
    page.wait_for_selector("#result .pn-result")
    page.wait_for_selector("#film-file input[type=file]", state="attached")
    first = answer(page).splitlines()[:3]
    assert analyse(page).splitlines()[:3] == first


def test_a_refused_picture_gets_reasons_and_an_answer_only_on_demand(visit: Visit) -> None:
    page = visit()
    assert not page.is_visible("#answer-anyway")
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway")
    assert "in colour" in page.inner_text("#result .pn-reasons")
    assert page.locator("#result [role=meter]").count() == 0
    page.click("#answer-anyway")
    page.wait_for_selector("#result .pn-result")
    assert "refused as a chest film" in page.inner_text("#result .pn-warnings")
    assert not page.is_visible("#answer-anyway")


_PASTE = """(encoded) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "image.png", { type: "image/png" }));
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
}"""
_DROP = _PASTE.replace("ClipboardEvent", "DragEvent").replace("clipboardData", "dataTransfer").replace("paste", "drop")


@pytest.mark.parametrize("event", [_PASTE, _DROP], ids=["paste", "drop"])
@pytest.mark.parametrize("first", [None, "film.jpg"], ids=["empty", "in place of another"])
def test_a_film_can_be_pasted_or_dropped_anywhere(
    visit: Visit, site: Running, films: Path, first: str | None, event: str
) -> None:
    page = visit()
    if first is not None:
        analyse(page, films / first)
    page.evaluate(event, base64.b64encode((films / "other.png").read_bytes()).decode())
    page.wait_for_selector("#film-file :text('image')")
    page.wait_for_selector("#result .pn-empty")
    page.wait_for_selector("#preview :text('PNG')")
    assert expected(site, films / "other.png")[1] in analyse(page)


@pytest.mark.parametrize("target", ["body", "#film-file button"])
@pytest.mark.parametrize("event", [_PASTE, _DROP], ids=["paste", "drop"])
def test_of_several_films_the_first_is_taken_and_said_to_be(
    visit: Visit, site: Running, films: Path, event: str, target: str
) -> None:
    page = visit()
    second = 'data.items.add(new File(["words"], "second.png"));'
    script = event.replace("document.body", f"document.querySelector('{target}')")
    script = script.replace('{ type: "image/png" }));', '{ type: "image/png" }));' + second)
    page.evaluate(script, base64.b64encode((films / "other.png").read_bytes()).decode())
    page.wait_for_selector("#preview :text('PNG')")
    assert page.inner_text("#one-film") == "One film at a time; the first was taken."
    assert expected(site, films / "other.png")[1] in analyse(page)
    assert not page.is_visible("#one-film")


def test_an_upload_that_is_never_analysed_leaves_the_disk(visit: Visit, films: Path) -> None:
    page = visit()
    choose(page, films / "film.jpg")
    film = (films / "film.jpg").read_bytes()
    wait_until(lambda: not [path for path in private_folder().rglob("*") if path.is_file()], 10)
    assert analyse(page)
    assert not any(path.read_bytes() == film for path in private_folder().rglob("*") if path.is_file())


def test_nothing_is_kept_in_the_browser(visit: Visit, films: Path) -> None:
    page = visit()
    analyse(page, films / "film.jpg")
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "film" not in stored
    assert "pneumonia" not in stored.lower()


@pytest.mark.parametrize("name", ["analyse", "analyse_anyway", "take"])
def test_an_event_called_raw_has_no_film(site: Running, name: str) -> None:
    event, data = site.ask_raw([None], name)
    assert event == "complete"
    assert "No film has been chosen" in json.dumps(data)


def test_a_model_that_is_still_loading_is_said_to_be(
    visit: Visit, films: Path, tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    loaded = threading.Event()

    def load() -> PneumoNet:
        loaded.wait(30)
        return tiny_model

    settings = Settings(model=str(tiny_snapshot), device="cpu")
    with serving(settings, load, tmp_path, build=None, wait=False) as starting:
        page = visit(starting.url)
        assert "still being loaded" in analyse(page, films / "film.jpg")
        loaded.set()
        wait_until(lambda: starting.service.status == "healthy")
        page.click("#analyse")
        page.wait_for_selector("#result .pn-result")


def test_who_asks_too_often_is_told_on_the_page(
    visit: Visit, films: Path, tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    # The upload is the one request of this minute.
    settings = Settings(model=str(tiny_snapshot), device="cpu", requests_per_minute=1)
    with serving(settings, lambda: tiny_model, tmp_path, build=None) as stingy:
        page = visit(stingy.url)
        page.set_input_files("#film-file input[type=file]", films / "film.jpg")
        page.wait_for_selector("text=Too many requests came from your address.")
        assert page.is_enabled("#analyse")
        assert page.locator("#result .pn-empty").count() == 1


def test_leaving_the_page_forgets_the_film(visit: Visit, films: Path, held_films: HeldFilms) -> None:
    page = visit()
    wait_until(lambda: len(held_films) == 0)
    choose(page, films / "film.jpg")
    assert len(held_films) == 1
    page.close()
    wait_until(lambda: len(held_films) == 0)


def test_nothing_of_an_answer_stays_in_the_servers_memory(visit: Visit, films: Path, held_films: HeldFilms) -> None:
    page = visit()
    analyse(page, films / "film.jpg")
    page.close()
    wait_until(lambda: len(held_films) == 0)
    gc.collect()
    assert _answers_in_memory() == 0


def _answers_in_memory() -> int:
    held = [thing for thing in gc.get_objects() if type(thing) in (dict, list, tuple)]
    parts = (part for thing in held for part in (thing.values() if isinstance(thing, dict) else thing))
    return sum(type(part) is str and len(part) > 50_000 and "pn-panel pn-result" in part for part in parts)
