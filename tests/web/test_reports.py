"""Reports by REST, by the page's links and on the command line."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import jsonschema
import numpy as np
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle
from pypdf import PdfReader

from pneumonet.cli import main
from pneumonet.model import PneumoNet
from pneumonet.reports import FORMATS
from pneumonet.settings import Settings
from pneumonet.web import ui
from pneumonet.web.held import Answered, offers
from pneumonet.web.reporting import REPORT_ROUTE, without_pixels
from pneumonet.web.service import Service
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, address, dicom, logged, unforeseen, wait_until
from tests.web.test_privacy import traces
from tests.web.test_rest import KEYS

STUDY = "1.2.840.99999.1"
FILMS: dict[str, bytes] = {
    "Doe_Jane.jpg": encoded(phantom(), "JPEG"),
    "Doe_Jane.dcm": dicom(phantom().astype(np.uint16) * 16, StudyInstanceUID=STUDY),
    "refused.png": encoded(phantom() * 0 + 90),
    "wide.png": encoded(phantom(200, 900)),
}


def ask(running: Running, name: str, query: str = "", accept: str | None = None, **fields: str) -> httpx.Response:
    headers = {} if accept is None else {"Accept": accept}
    with running.http() as http:
        return http.post(f"/predict{query}", files={"file": (name, FILMS[name])}, data=fields, headers=headers)


def text_of(pdf: bytes) -> str:
    return " ".join(" ".join(page.extract_text() for page in PdfReader(BytesIO(pdf)).pages).split())


def schema(running: Running) -> Any:
    with running.http() as http:
        answer = http.get("/schema/report.json")
    assert answer.headers["content-type"] == "application/schema+json"
    return answer.json()


def check(kind: str, body: bytes, running: Running, refused: bool) -> None:
    """Read a report by the library of its format."""
    if kind == "pdf":
        assert ("Not answered" in text_of(body)) == refused
    elif kind == "json":
        document = json.loads(body)
        jsonschema.Draft202012Validator(schema(running)).validate(document)
        assert (document["status"] == "refused") == refused
    elif kind == "fhir":
        status = Bundle.model_validate_json(body).entry[0].resource.status
        assert (status == "cancelled") == refused
    else:
        written = pydicom.dcmread(BytesIO(body))
        assert written.Modality == ("SR" if kind == "dicom-sr" else "OT")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", FILMS)
def test_each_format_of_each_film_is_a_download(running: Running, name: str, kind: str) -> None:
    answer = ask(running, name, f"?format={kind}", **({"force": "true"} if name == "wide.png" else {}))
    refused = name == "refused.png"
    assert answer.status_code == (422 if refused else 200)
    assert answer.headers["content-type"] == FORMATS[kind].media_type
    assert answer.headers["content-disposition"] == f'attachment; filename="pneumonet-report{FORMATS[kind].suffix}"'
    assert answer.headers["cache-control"] == "no-store"
    assert b"Doe_Jane" not in answer.content
    check(kind, answer.content, running, refused)
    if "dicom" in kind and name.endswith(".dcm"):
        assert pydicom.dcmread(BytesIO(answer.content)).StudyInstanceUID == STUDY


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/pdf", "application/pdf"),
        ("application/fhir+json; fhirVersion=4.0", "application/fhir+json"),
        ("application/dicom", "application/dicom"),
        ("application/vnd.pneumonet.report+json", "application/vnd.pneumonet.report+json"),
        ("application/json;q=0.5, application/pdf", "application/pdf"),
        ("APPLICATION/PDF, */*;q=0.1", "application/pdf"),
        ("application/json", "application/json"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json"),
        ("application/*", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
        ("application/json;q=0, */*", "application/pdf"),
    ],
)
def test_accept_chooses(running: Running, accept: str, media_type: str) -> None:
    answer = ask(running, "Doe_Jane.jpg", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    if media_type == "application/json":
        assert set(answer.json()) == KEYS
        assert "content-disposition" not in answer.headers
    if media_type == "application/dicom":
        assert pydicom.dcmread(BytesIO(answer.content)).Modality == "SR"


def test_format_weighs_more_than_accept(running: Running) -> None:
    answer = ask(running, "Doe_Jane.jpg", "?format=fhir", accept="application/pdf")
    assert answer.headers["content-type"] == "application/fhir+json"


@pytest.mark.parametrize(
    "accept", ["text/html", "image/png", "application/json;q=0", "application/pdf;q=x", "nonsense"]
)
def test_what_cannot_be_met_is_told(running: Running, accept: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pneumonet")
    answer = ask(running, "Doe_Jane.jpg", accept=accept)
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    assert "application/pdf" in answer.json()["error"]
    assert logged(caplog) == [("rest", "not_acceptable")]


@pytest.mark.parametrize("query", ["?format=docx", "?format=", "?format=PDF", "?format=pdf&format=json"])
def test_an_unknown_format_is_a_bad_request_that_names_what_is_offered(running: Running, query: str) -> None:
    answer = ask(running, "Doe_Jane.jpg", query)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert "&" in query or all(name in answer.json()["error"] for name in FORMATS)


def test_an_unreadable_film_is_told_as_ever(running: Running) -> None:
    with running.http() as http:
        answer = http.post("/predict?format=pdf", files={"file": ("a.png", b"These are words.")})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_a_report_without_heatmap(running: Running) -> None:
    answer = ask(running, "Doe_Jane.jpg", "?format=json", disable_cam="true")
    assert answer.json()["heatmap"] is None
    assert answer.json()["finding"]


def test_the_figures_are_those_of_the_plain_answer(running: Running) -> None:
    plain = ask(running, "Doe_Jane.jpg").json()
    report = ask(running, "Doe_Jane.jpg", "?format=json").json()
    assert report["finding"]["probabilities"] == plain["probabilities"]
    assert (report["risk_level"], report["warnings"]) == (plain["risk_level"], plain["warnings"])
    pdf = text_of(ask(running, "Doe_Jane.jpg", "?format=pdf").content)
    assert f"confidence {plain['confidence']}" in pdf
    assert plain["disclaimer"] in pdf


def test_the_description_and_the_openapi_name_the_reports(running: Running) -> None:
    with running.http() as http:
        described, openapi = http.get("/api").json(), http.get("/openapi.json").json()
    assert [report["ask"] for report in described["reports"]] == [f"POST /predict?format={name}" for name in FORMATS]
    operation = openapi["paths"]["/predict"]["post"]
    assert operation["parameters"][0]["schema"]["enum"] == list(FORMATS)
    for status in ("200", "422"):
        assert {kind.media_type for kind in FORMATS.values()} < set(operation["responses"][status]["content"])
    assert "406" in operation["responses"]


# --- The page's links ---


def page_of(model: PneumoNet) -> ui.Page:
    service = Service(Settings(device="cpu", root_path="/prefix"), lambda: model)
    service.start().join()
    return ui.Page(service, ())


VISITOR = gr.Request(session_hash="visitor", headers={}, query_params={})


def links(html: str) -> dict[str, str]:
    found = re.findall(r'<a class="pn-button" href="([^"]+)" download="pneumonet-report([^"]+)"', html)
    return {suffix: href for href, suffix in found}


@pytest.mark.parametrize("name", ["Doe_Jane.jpg", "refused.png"])
def test_an_answer_offers_its_reports_for_as_long_as_the_film_is_held(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ui, "take_file", FILMS.__getitem__)

    async def visit() -> None:
        page = page_of(tiny_model)
        html = [update async for update in page.analyse(name, VISITOR)][-1][0]
        hrefs = links(html)
        assert set(hrefs) == {kind.suffix for kind in FORMATS.values()}
        assert all(href.startswith("/prefix/report/") for href in hrefs.values())
        token = hrefs[".pdf"].split("/")[3]
        assert re.fullmatch("[0-9a-f]{40}", token)
        answered = offers.get(token)
        assert answered is not None
        assert answered.data == FILMS[name]
        # Another answer of the same film takes the place of the first.
        again = [update async for update in page.analyse_anyway(name, VISITOR)][-1][0]
        assert offers.get(token) is None
        token = links(again)[".pdf"].split("/")[3]
        assert offers.get(token) is not None
        await page.forget(VISITOR)
        assert offers.get(token) is None

    asyncio.run(visit())


def test_a_failure_offers_no_report(tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "take_file", lambda path: b"These are words.")

    async def visit() -> None:
        html = [update async for update in page_of(tiny_model).analyse("x", VISITOR)][-1][0]
        assert not links(html)

    asyncio.run(visit())


def answered_of(model: PneumoNet, name: str) -> Answered:
    outcome = without_pixels(model.predict(FILMS[name]))
    return Answered(FILMS[name], outcome, "0123456789abcdef", datetime(2026, 2, 3, tzinfo=timezone.utc))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_link_gives_the_report_until_its_film_is_gone(running: Running, tiny_model: PneumoNet, kind: str) -> None:
    answered = answered_of(tiny_model, "Doe_Jane.dcm")
    token = offers.add(answered)
    path = f"{REPORT_ROUTE}/{token}"
    with running.http() as http:
        given = http.get(f"{path}/{kind}")
        assert given.status_code == 200
        assert given.headers["content-disposition"].startswith("attachment;")
        assert given.headers["cache-control"] == "no-store"
        check(kind, given.content, running, refused=False)
        if kind == "json":
            expected = tiny_model.predict(FILMS["Doe_Jane.dcm"]).to_dict()["probabilities"]
            assert given.json()["finding"]["probabilities"] == expected
            assert (given.json()["film"]["height"], given.json()["created"]) == (300, "2026-02-03T00:00:00Z")
        assert http.get(f"{path}/docx").status_code == 404
        assert http.get(f"/report/{'0' * 40}/{kind}").json()["code"] == "not_found"
        assert http.post(f"{path}/{kind}").status_code in (404, 405)
        offers.take_back(token)
        assert http.get(f"{path}/{kind}").status_code == 404


@pytest.mark.parametrize("kind", FORMATS)
def test_a_link_can_be_asked_for_beforehand(running: Running, tiny_model: PneumoNet, kind: str) -> None:
    token = offers.add(answered_of(tiny_model, "Doe_Jane.dcm"))
    with running.http() as http:
        there = http.head(f"{REPORT_ROUTE}/{token}/{kind}")
        assert (there.status_code, there.content) == (200, b"")
        assert there.headers["content-type"] == FORMATS[kind].media_type
        assert there.headers["cache-control"] == "no-store"
        # The report has not been made, so nobody knows its length.
        assert "content-length" not in there.headers
        assert http.head(f"{REPORT_ROUTE}/{token}/docx").status_code == 404
        offers.take_back(token)
        gone = http.head(f"{REPORT_ROUTE}/{token}/{kind}")
        assert (gone.status_code, gone.content) == (404, b"")


def test_a_link_is_not_logged(running: Running, tiny_model: PneumoNet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    answered = answered_of(tiny_model, "Doe_Jane.dcm")
    token = offers.add(answered)
    with running.http() as http:
        for name in (*FORMATS, "docx"):
            http.get(f"{REPORT_ROUTE}/{token}/{name}")
    offers.take_back(token)
    # The client of the test logs; so does uvicorn, whose access log `serve` turns off.
    theirs = ("httpx", "httpcore", "uvicorn.access")
    own = " ".join(record.getMessage() for record in caplog.records if not record.name.startswith(theirs))
    assert token not in own
    assert "Doe" not in own


def test_what_is_held_of_an_answer_has_no_pixels(tiny_model: PneumoNet) -> None:
    outcome: Any = answered_of(tiny_model, "Doe_Jane.jpg").outcome
    assert outcome.film.pixels.size == 1


# --- The command line ---


@pytest.fixture
def shell(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    for name in FILMS:
        (tmp_path / name).write_bytes(FILMS[name])
    (tmp_path / "words.png").write_text("These are words.")
    return lambda *arguments: main(["predict", *arguments, "--report-dir", str(tmp_path / "out")])


def test_the_shell_writes_each_report_a_refused_films_too(
    shell: Callable[..., int], tmp_path: Path, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = [option for name in FORMATS for option in ("--report", name)]
    files = [str(tmp_path / name) for name in ("Doe_Jane.dcm", "refused.png", "words.png")]
    assert shell(*files, *wanted, "--json") == 1
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (second["code"], third["code"]) == ("not_admitted", "unsupported_format")
    for stem, refused in (("Doe_Jane", False), ("refused", True)):
        for kind in FORMATS.values():
            check(kind.name, (tmp_path / "out" / f"{stem}.report{kind.suffix}").read_bytes(), running, refused)
    assert not list((tmp_path / "out").glob("words*"))
    report = json.loads((tmp_path / "out" / "Doe_Jane.report.json").read_text(encoding="utf-8"))
    assert report["request_id"] == first["request_id"]
    assert report["finding"]["probabilities"] == first["probabilities"]
    assert report["heatmap"]


def test_the_shell_s_exit_code_is_as_ever(shell: Callable[..., int], tmp_path: Path) -> None:
    assert shell(str(tmp_path / "Doe_Jane.jpg"), "--report", "pdf") == 0
    with pytest.raises(SystemExit) as stopped:
        shell(str(tmp_path / "Doe_Jane.jpg"), "--report", "docx")
    assert stopped.value.code == 2
    # Both would write Doe_Jane.report.pdf.
    assert shell(str(tmp_path / "Doe_Jane.jpg"), str(tmp_path / "Doe_Jane.dcm"), "--report", "pdf") == 1


def test_no_report_leaves_anything_on_disk_or_in_the_log(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start(GRADIO_TEMP_DIR=str(tmp_path / "gradio"))
    server = Running(address(process), None, tmp_path / "client")  # type: ignore[arg-type]
    with server.http() as http:
        wait_until(lambda: http.get("/health").status_code == 200)
    watched = [tmp_path / name for name in ("tmp", "cwd", "gradio")]
    before = set(traces(watched, []))
    # A name that highdicom thinks odd, and logs by itself.
    film = dicom(phantom().astype(np.uint16) * 16, StudyInstanceUID=STUDY, PatientName="Doe Jane 1999")
    with server.http() as http:
        for kind in FORMATS:
            answer = http.post(f"/predict?format={kind}", files={"file": ("Doe_Jane_1999.dcm", film)})
            assert answer.status_code == 200
    assert not set(traces(watched, [film])) - before
    process.send_signal(signal.SIGTERM)
    said, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Doe" not in said + told
    assert not unforeseen(said + told)
    for line in told.splitlines():
        json.loads(line)
