"""On a phone: installable, the camera in the chooser, and an answer that can be read at 360 pixels."""

import json
from pathlib import Path
from typing import Any

import pytest

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.e2e.conftest import Visit, analyse
from tests.web.conftest import Running, serving

pytestmark = pytest.mark.browser

PHONE: dict[str, Any] = {"viewport": {"width": 360, "height": 780}, "is_mobile": True, "has_touch": True}
_SMALLEST_LETTERS = """() => Math.min(...[...document.querySelectorAll("#result *")]
  .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .map((e) => parseFloat(getComputedStyle(e).fontSize)))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_answer_and_its_heatmap_are_readable_at_360_pixels(
    visit: Visit, films: Path, artifacts: Path, scheme: str
) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce", **PHONE)
    page.screenshot(path=artifacts / f"empty-360-{scheme}.png", full_page=True)
    analyse(page, films / "film.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    stage = page.locator(".pn-stage").bounding_box()
    # All the panel leaves it, and the picture's own aspect.
    assert stage["width"] >= 290
    assert stage["width"] / stage["height"] == pytest.approx(260 / 300, abs=0.01)
    assert page.evaluate(_SMALLEST_LETTERS) >= 12
    for part in (".pn-label", ".pn-risk", ".pn-meters", ".pn-heat img:visible", ".pn-legend", ".pn-next"):
        box = page.locator(part).first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    # The first screen of the answer names label, confidence and risk.
    top = page.locator("#result .pn-panel").bounding_box()["y"]
    assert page.locator(".pn-risk").bounding_box()["y"] - top < 300
    page.screenshot(path=artifacts / f"result-360-{scheme}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.screenshot(path=artifacts / f"result-1280-{scheme}.png", full_page=True)
    page.set_viewport_size(PHONE["viewport"])
    page.click("#example-1")
    page.wait_for_selector("#answer-anyway")
    page.screenshot(path=artifacts / f"refusal-360-{scheme}.png", full_page=True)


@pytest.mark.parametrize(("options", "offered"), [(PHONE, True), ({}, False)], ids=["phone", "desk"])
def test_a_phone_offers_its_camera_and_a_desk_every_file(visit: Visit, options: dict[str, Any], offered: bool) -> None:
    page = visit(**options)
    with page.expect_file_chooser():
        page.click("#film-file button")
    accepted = (page.get_attribute("#film-file input[type=file]", "accept") or "").split(",")
    assert ("image/*" in accepted) is offered
    # Nothing is shut out: a DICOM file has no kind that a phone knows, and often no suffix.
    assert ("*/*" in accepted) or accepted == [""]
    assert page.get_attribute("#film-file input[type=file]", "capture") is None


def test_the_page_can_be_installed(visit: Visit, site: Running) -> None:
    page = visit()
    devtools = page.context.new_cdp_session(page)
    found = devtools.send("Page.getAppManifest")
    assert found["url"] == site.url + "/manifest.json?lang=en"
    assert found["errors"] == []
    assert json.loads(found["data"])["name"].startswith("PneumoNet")
    # A test's visitor browses in private, where chromium installs nothing.
    errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert [error["errorId"] for error in errors if error["errorId"] != "in-incognito"] == []
    named = page.locator("link[rel~=icon], link[rel=apple-touch-icon]")
    icons = named.evaluate_all("links => links.map((link) => link.href)")
    assert len(icons) == 2
    for icon in icons:
        assert page.request.get(icon).headers["content-type"] == "image/png"


def test_behind_a_prefix_the_manifest_is_found_there(
    visit: Visit, tiny_snapshot: Path, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    settings = Settings(model=str(tiny_snapshot), device="cpu", root_path="/pneumo")
    with serving(settings, lambda: tiny_model, tmp_path, build=None) as running:
        page = visit(running.url + "/pneumo/")
        found = page.context.new_cdp_session(page).send("Page.getAppManifest")
        assert found["url"] == running.url + "/pneumo/manifest.json?lang=en"
        assert found["manifest"]["startUrl"] == running.url + "/pneumo/"
        page.close()
