"""Which language each web door answers in; what programs read is the same in all."""

import json
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file

from pneumonet.finding import DISCLAIMER
from pneumonet.language import ENGLISH, LANGUAGES, Language
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from pneumonet.web.languages import COOKIE
from pneumonet.web.view import ANALYSE
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, serving

GERMAN, ARABIC = LANGUAGES["de"], LANGUAGES["ar"]
REFUSED = encoded(phantom() * 0 + 90)

ASKED: list[tuple[dict[str, str], dict[str, str], Language]] = [
    ({}, {}, ENGLISH),
    ({}, {"Accept-Language": "de-AT,de;q=0.9,en;q=0.5"}, GERMAN),
    ({}, {"Cookie": f"other=1; {COOKIE}=ar", "Accept-Language": "de"}, ARABIC),
    ({"lang": "de"}, {"Cookie": f"{COOKIE}=ar"}, GERMAN),
    ({"lang": "xx"}, {"Accept-Language": "ar"}, ARABIC),
    ({"lang": "../../etc/passwd"}, {"Cookie": f'{COOKIE}="\\"', "Accept-Language": ",;=,"}, ENGLISH),
]


def _post(running: Running, film: bytes, query: dict[str, str], headers: dict[str, str], path: str = "/predict") -> Any:
    with running.http() as http:
        return http.post(path, params=query, headers=headers, files={"file": ("film.png", film)})


@pytest.mark.parametrize(("query", "headers", "language"), ASKED)
def test_an_answer_is_in_the_language_asked_for(
    running: Running, good_film: bytes, query: dict[str, str], headers: dict[str, str], language: Language
) -> None:
    answer, english = _post(running, good_film, query, headers), running.post(good_film).json()
    told = answer.json()
    assert answer.headers["content-language"] == language.tag
    assert "Accept-Language" in answer.headers["vary"]
    assert told["disclaimer"] == language(DISCLAIMER)
    for key in ("prediction", "confidence", "risk_level", "probabilities", "prediction_set", "members", "model"):
        assert told[key] == english[key]


@pytest.mark.parametrize(("query", "headers", "language"), ASKED)
def test_a_refusal_is_in_the_language_asked_for(
    running: Running, query: dict[str, str], headers: dict[str, str], language: Language
) -> None:
    answer = _post(running, REFUSED, query, headers)
    told, english = answer.json(), running.post(REFUSED).json()
    assert (answer.status_code, told["code"]) == (422, "not_admitted")
    assert answer.headers["content-language"] == language.tag
    assert [reason["code"] for reason in told["reasons"]] == [reason["code"] for reason in english["reasons"]]
    assert [language(reason["message"]) for reason in english["reasons"]] == [r["message"] for r in told["reasons"]]
    assert all(reason["message"] in told["error"] for reason in told["reasons"])


@pytest.mark.parametrize(
    ("film", "code"), [(b"", "empty_file"), (b"words", "unsupported_format"), (bytes(10_000_001), "file_too_large")]
)
def test_an_error_is_in_the_language_asked_for_and_its_code_is_not(running: Running, film: bytes, code: str) -> None:
    german, english = (_post(running, film, {"lang": tag}, {}).json() for tag in ("de", "en"))
    assert german["code"] == english["code"] == code
    for key in ("error", "hint"):
        assert german[key] != english[key]
        assert GERMAN(english[key]) in (german[key], english[key])


def test_a_report_by_rest_is_in_the_language_asked_for(running: Running, good_film: bytes) -> None:
    answer = _post(running, good_film, {"format": "json", "lang": "pt"}, {})
    assert json.loads(answer.content)["language"] == answer.headers["content-language"] == "pt-BR"


def test_a_failed_upload_to_the_page_is_told_in_its_language(running: Running) -> None:
    with running.http() as http:
        path, film = "/gradio_api/upload", {"files": ("film.png", bytes(10_000_001))}
        answer = http.post(path, params={"lang": "de"}, files=film)
    assert answer.status_code == 413
    assert "größer" in answer.text


def test_gradios_endpoints_answer_as_their_caller_accepts(running: Running, tmp_path: Any, good_film: bytes) -> None:
    film = tmp_path / "film.png"
    film.write_bytes(good_film)
    client = Client(running.url, verbose=False, headers={"Accept-Language": "de"})
    answer, _ = client.predict(handle_file(str(film)), api_name="/predict")
    assert answer["disclaimer"] == GERMAN(DISCLAIMER)
    film.write_bytes(REFUSED)
    with pytest.raises(Exception, match="not_admitted") as failure:
        client.predict(handle_file(str(film)), api_name="/predict")
    assert "Röntgenbild" in str(failure.value) or "Aufnahme" in str(failure.value)


def test_the_page_is_drawn_in_the_language_at_once_and_for_nobody_else(
    web_settings: Settings, tiny_model: PneumoNet, tmp_path: Path
) -> None:
    with serving(web_settings, lambda: tiny_model, tmp_path, build=None) as running, running.http() as http:
        german = http.get("/", headers={"Accept-Language": "de"}).text
        english = http.get("/").text
        assert http.get("/config", headers={"Accept-Language": "de"}).text.count(GERMAN(ANALYSE)) == 1
    assert GERMAN(ANALYSE) in german
    assert GERMAN(ANALYSE) not in english
    assert ANALYSE in english
