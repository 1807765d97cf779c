"""Behind a reverse proxy at a prefix, whether it strips the prefix or not."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.web.conftest import Running, serving, wait_until
from tests.web.test_endpoints import CLOSED

PREFIX = "/pneumo"


class Proxy:
    """As nginx's proxy_pass does it: the Host as it came, the body and the answer streamed."""

    def __init__(self, target: str, strips: bool) -> None:
        self.client = httpx.AsyncClient(base_url=target, timeout=60)
        self.strips = strips

    async def __call__(self, scope: dict, receive: object, send: object) -> None:  # type: ignore[type-arg]
        if scope["type"] != "http":
            return
        request = Request(scope, receive)  # type: ignore[arg-type]
        path = request.url.path
        if not path.startswith(PREFIX + "/"):
            await Response("outside the prefix", 418)(scope, receive, send)  # type: ignore[arg-type]
            return
        path = path.removeprefix(PREFIX) if self.strips else path
        asked = self.client.build_request(
            request.method, httpx.URL(path, query=request.url.query.encode()), headers=request.headers.raw,
            content=await request.body(),
        )  # fmt: skip
        answer = await self.client.send(asked, stream=True)

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in answer.aiter_raw():
                yield chunk
            await answer.aclose()

        response = StreamingResponse(chunks(), answer.status_code)
        response.raw_headers = list(answer.headers.raw)
        await response(scope, receive, send)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[True, False], ids=["strips", "keeps"])
def proxied(
    request: pytest.FixtureRequest,
    web_settings: Settings,
    tiny_model: PneumoNet,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    settings = replace(web_settings, root_path=PREFIX)
    with serving(settings, lambda: tiny_model, tmp_path_factory.mktemp("proxied")) as server:
        config = uvicorn.Config(Proxy(server.url, request.param), port=0, log_config=None, access_log=False)
        proxy = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(proxy.serve()), daemon=True)
        thread.start()
        wait_until(lambda: proxy.started)
        port = proxy.servers[0].sockets[0].getsockname()[1]
        yield Running(f"http://127.0.0.1:{port}{PREFIX}", server.service, server.downloads)
        proxy.should_exit = True
        thread.join(10)


def test_the_page_and_all_it_names_load(proxied: Running) -> None:
    page = httpx.get(proxied.url + "/")
    assert page.status_code == 200
    origin = proxied.url.removesuffix(PREFIX)
    # Gradio's template names the manifest, for installing a page as an app, without the prefix; nothing else asks it.
    named = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)) - {"/manifest.json"}
    ours = {url for url in named if not url.startswith("https://")}
    assert ours
    for url in ours:
        assert httpx.get(str(httpx.URL(proxied.url + "/").join(url))).status_code == 200, url
    root = re.search(r'"root":\s*"([^"]*)"', page.text)
    assert root is not None
    assert root[1] in (PREFIX, origin + PREFIX)


def test_rest_answers(proxied: Running, good_film: bytes) -> None:
    assert httpx.get(proxied.url + "/health").status_code == 200
    assert httpx.get(proxied.url + "/api").status_code == 200
    answer = httpx.post(proxied.url + "/predict", files={"file": ("a.png", good_film)}, timeout=60)
    assert answer.status_code == 200


def test_gradio_client_uploads_asks_and_downloads(proxied: Running, good_film: bytes) -> None:
    finding, picture = proxied.ask_client(good_film)
    assert finding["prediction"]
    assert Path(picture).read_bytes()[:4] == b"\x89PNG"


def test_what_is_closed_stays_closed_however_often_the_prefix_is_named(proxied: Running) -> None:
    named = ["", *(again * count for again in (PREFIX, "/%70neumo", "//pneumo", "%2Fpneumo") for count in (1, 2))]
    with httpx.Client() as http:
        for more in named:
            for method, path, status in CLOSED:
                answer = http.request(method, proxied.url + more + path)
                assert answer.status_code in ((status, 404) if more else (status,)), more + path
            upload = http.post(proxied.url + more + "/gradio_api/upload", files={"files": ("a.png", b"x")})
            # Whose upload it was shows in the path: Gradio's own would lie there.
            assert upload.status_code == 404 or not Path(upload.json()[0]).exists()
