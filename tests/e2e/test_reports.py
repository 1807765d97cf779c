"""The page's reports: reached by keyboard, downloaded under a neutral name, gone with the film."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pypdf import PdfReader

from pneumonet.language import LANGUAGES
from pneumonet.reports import FORMATS
from pneumonet.web.held import offers
from pneumonet.web.reporting import ANSWER_AGAIN, GONE
from tests.e2e.conftest import Visit, analyse, take_away
from tests.web.conftest import Running, wait_until

pytestmark = pytest.mark.browser


def downloaded(page: Any, name: str) -> bytes:
    link = page.get_by_role("link", name=f"Download the report as {FORMATS[name].title}", exact=True)
    link.focus()
    with page.expect_download() as waiting:
        page.keyboard.press("Enter")
    assert waiting.value.suggested_filename == FORMATS[name].file_name
    return Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize("options", [{}, {"viewport": {"width": 360, "height": 740}}], ids=["desk", "phone"])
def test_each_report_is_downloaded_by_keyboard(visit: Visit, films: Path, options: dict[str, Any]) -> None:
    page = visit(**options)
    confidence = analyse(page, films / "SCAN.DCM").split("confidence")[1].split()[0]
    assert confidence in PdfReader(BytesIO(downloaded(page, "pdf"))).pages[0].extract_text()
    assert json.loads(downloaded(page, "json"))["finding"]["confidence"] == confidence
    assert json.loads(downloaded(page, "fhir"))["resourceType"] == "Bundle"
    assert pydicom.dcmread(BytesIO(downloaded(page, "dicom-sr"))).Modality == "SR"
    assert pydicom.dcmread(BytesIO(downloaded(page, "dicom-sc"))).Modality == "OT"
    for box in (link.bounding_box() for link in page.locator(".pn-reports a").all()):
        assert box["height"] >= 44
        assert box["x"] + box["width"] <= page.viewport_size["width"]


def test_a_refused_film_has_a_report_and_it_goes_with_the_film(visit: Visit, site: Running, films: Path) -> None:
    page = visit()
    analyse(page, films / "colour.png")
    assert "Not answered" in PdfReader(BytesIO(downloaded(page, "pdf"))).pages[0].extract_text()
    href = page.locator(".pn-reports a").first.get_attribute("href")
    assert httpx.get(site.url + href).status_code == 200
    take_away(page)
    wait_until(lambda: httpx.get(site.url + href).status_code == 404)
    page.wait_for_selector("#result .pn-empty")
    assert page.locator(".pn-reports").count() == 0


def test_a_report_that_cannot_be_had_is_told_on_the_page(visit: Visit, films: Path) -> None:
    page, german = visit(locale="de"), LANGUAGES["de"]
    analyse(page, films / "film.jpg")
    link, notice = page.locator(".pn-reports a").first, page.locator(".pn-reports [role=alert]")
    assert notice.is_hidden()
    page.route("**/report/**", lambda route: route.abort())
    link.click()
    notice.filter(has_text=german("Wait a moment, then try again.")).wait_for()
    page.unroute("**/report/**")
    offers.take_back(link.get_attribute("href").split("/")[-2])
    link.click()
    notice.filter(has_text=f"{german(GONE)} {german(ANSWER_AGAIN)}").wait_for()
