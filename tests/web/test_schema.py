"""The plain routes keep to the schema that they publish, whatever is sent."""

import base64
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import pytest

from pneumonet.language import LANGUAGES
from pneumonet.model import PneumoNet
from pneumonet.reports import FORMATS
from pneumonet.settings import Settings
from tests.web.conftest import Running, serving

# No version of it that we know of runs on Python 3.10.
schemathesis = pytest.importorskip("schemathesis")

import jsonschema_rs  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import response_schema_conformance  # noqa: E402


@pytest.fixture(scope="module")
def published(tiny_model: PneumoNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(Settings(requests_per_minute=0), lambda: tiny_model, tmp_path_factory.mktemp("schema")) as server:
        yield server


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/predict", GenerationMode.POSITIVE),
        ("/predict", GenerationMode.NEGATIVE),
        ("/health", GenerationMode.POSITIVE),
        ("/api", GenerationMode.POSITIVE),
        ("/metrics", GenerationMode.POSITIVE),
    ],
)
def test_nothing_that_the_schema_allows_or_forbids_is_answered_with_a_500(
    published: Running, path: str, mode: GenerationMode
) -> None:
    described = schemathesis.openapi.from_url(f"{published.url}/openapi.json")
    operation = described[path]["POST" if path == "/predict" else "GET"]
    seen = []

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def ask(case: Any) -> None:
        answer = case.call()
        seen.append(answer.status_code)
        case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])

    ask()
    if path == "/predict":
        assert 400 in seen


def _answer_schema(published: Running, status: str) -> dict[str, Any]:
    with published.http() as http:
        described = http.get("/openapi.json").json()
    content = described["paths"]["/predict"]["post"]["responses"][status]["content"]
    answer: dict[str, Any] = content["application/json"]["schema"]
    return answer


def test_a_real_answer_and_a_real_refusal_are_as_described(published: Running, good_film: bytes) -> None:
    with published.http() as http:
        answered = http.post("/predict", json={"file_data": base64.b64encode(good_film).decode()})
        refused = http.post("/predict", json={"file_data": base64.b64encode(b"text").decode()})
    jsonschema_rs.validate(_answer_schema(published, "200"), answered.json())
    jsonschema_rs.validate(_answer_schema(published, "415"), refused.json())
    assert (answered.status_code, refused.status_code) == (200, 415)


def test_the_schema_tells_the_languages_and_what_each_report_is(published: Running) -> None:
    with published.http() as http:
        operation = http.get("/openapi.json").json()["paths"]["/predict"]["post"]
        told = {(parameter["in"], parameter["name"]): parameter for parameter in operation["parameters"]}
        assert told["query", "lang"]["schema"]["enum"] == list(LANGUAGES)
        assert ("header", "Accept-Language") in told
        for status in ("200", "422"):
            content = operation["responses"][status]["content"]
            kinds = {kind.name: content[kind.media_type]["schema"] for kind in FORMATS.values()}
            for name in ("pdf", "dicom-sr", "dicom-sc"):
                assert kinds[name] == {"type": "string", "format": "binary"}
            # Beside the schema itself, behind a prefix too.
            path = urljoin("/openapi.json", kinds["json"]["$ref"])
            assert http.get(path).headers["content-type"] == "application/schema+json"
            assert kinds["fhir"]["properties"]["resourceType"] == {"const": "Bundle"}


def test_the_schema_names_our_routes_alone(published: Running) -> None:
    with published.http() as http:
        described = http.get("/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/health", "/api", "/metrics"}
    assert set(described["paths"]["/predict"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data", "application/json",
    }  # fmt: skip
