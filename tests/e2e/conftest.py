"""The real page in Debian's chromium, on a real server with the tiny snapshot."""

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.taxonomy import DISPLAY_NAMES
from pneumonet.web import examples, ui
from pneumonet.web.held import HeldFilms
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving

CHROMIUM = shutil.which("chromium")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
Visit = Callable[..., Any]
HOSTILE_TITLE = "Synthetic <b>film</b> ${1+1} {{value}}"


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files to send, each of its own kind."""
    folder = tmp_path_factory.mktemp("films")
    grey = phantom()
    (folder / "film.jpg").write_bytes(encoded(grey, "JPEG"))
    (folder / "other.png").write_bytes(encoded(phantom(blob=(0.3, 0.7), seed=5)))
    (folder / "deep.png").write_bytes(encoded(grey.astype(np.uint16) * 257))
    for name in ("SCAN.DCM", "IM0001"):
        (folder / name).write_bytes(_dicom(grey))
    (folder / "notes.txt").write_text("These are words and no film.")
    (folder / "large.png").write_bytes(bytes(10_000_001))
    (folder / "colour.png").write_bytes(_in_colour())
    return folder


def _dicom(grey: np.ndarray) -> bytes:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.Modality, data.PhotometricInterpretation, data.SamplesPerPixel = "CR", "MONOCHROME2", 1
    data.Rows, data.Columns = grey.shape
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = (grey.astype(np.uint16) * 16).tobytes()
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _in_colour() -> bytes:
    picture = np.zeros((200, 200, 3), dtype=np.uint8)
    picture[:, :100, 0], picture[:, 100:, 2] = 220, 200
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def held_films() -> HeldFilms:
    """The films that the site's visitors have chosen."""
    return HeldFilms()


@pytest.fixture(scope="session")
def site(
    tiny_snapshot: Path,
    tiny_model: PneumoNet,
    films: Path,
    held_films: HeldFilms,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """The whole app, with two examples of its own."""
    folder = tmp_path_factory.mktemp("examples")
    entries = [
        {"file": "film.jpg", "title": HOSTILE_TITLE, "note": "Nobody's film."},
        {"file": "colour.png", "title": "Two colours: will be refused", "note": "What happens to other pictures."},
    ]
    for entry in entries:
        shutil.copy(films / entry["file"], folder)
    (folder / "examples.json").write_text(json.dumps(entries))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ui, "load_examples", lambda: examples.load_examples(folder))
        patch.setattr(ui, "HeldFilms", lambda: held_films)
        settings = Settings(model=str(tiny_snapshot), device="cpu")
        with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("downloads"), build=None) as running:
            # The page is built; another server's has its own.
            patch.undo()
            yield running


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    with launched() as browser:
        yield browser


@contextlib.contextmanager
def launched() -> Iterator[Any]:
    """Launch a browser for as long as the block lasts: while it does, no asyncio loop and no second one can start."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright in this environment")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium: Any, site: Running) -> Iterator[Callable[..., Any]]:
    """Open the page as a new visitor.

    When the test is over, no visitor has asked any other host for anything, and no script has failed.
    """
    contexts, hosts, failures = [], set(), []

    def open_page(url: str = site.url, **options: Any) -> Any:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        page.on("pageerror", lambda error: failures.append(error))
        page.goto(url)
        page.wait_for_selector("#analyse")
        page.wait_for_selector("#film-file input[type=file]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert hosts <= {"127.0.0.1", None}
    assert failures == []


_SHOWN = """() => [
  document.querySelector("#preview img")?.src, document.querySelector("#result [data-key]")?.dataset.key,
].join()"""


def choose(page: Any, film: Path) -> None:
    """Choose a film, and wait until the page shows it or says why not."""
    before = page.evaluate(_SHOWN)
    page.set_input_files("#film-file input[type=file]", film)
    page.wait_for_selector("#film-file .file-preview")
    page.wait_for_function(f"before => ({_SHOWN})() !== before", arg=before)
    page.wait_for_selector("#preview img, #result .pn-failure")


def analyse(page: Any, film: Path | None = None) -> str:
    """Press the button, after choosing a film if one is given; returns the words of the new answer."""
    if film is not None:
        choose(page, film)
    last = page.locator("#result [data-key]")
    key = last.get_attribute("data-key") if last.count() else None
    page.click("#analyse")
    page.wait_for_selector(f"#result [data-key]:not([data-key=working]):not([data-key='{key}'])")
    return answer(page)


def take_away(page: Any) -> None:
    """Press the button that takes the chosen film away."""
    page.get_by_role("button", name="Take the film away").click()


def answer(page: Any) -> str:
    """Return the words of the answer, once it is there."""
    page.wait_for_selector("#result .pn-result, #result .pn-failure")
    page.wait_for_selector("#analyse:enabled")
    return str(page.inner_text("#result"))


def expected(site: Running, film: Path) -> list[str]:
    """Return what POST /predict says of a film, as the page words it."""
    answer = site.post(film.read_bytes(), film.name).json()
    return [DISPLAY_NAMES[answer["prediction"].replace(" ", "_")], answer["confidence"], answer["risk_level"]]


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are left, to be looked at; git ignores it."""
    folder = Path(__file__).parents[1] / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder
