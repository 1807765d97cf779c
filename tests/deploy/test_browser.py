"""The page itself in Debian's chromium, through nginx: two visitors of one address, each with a worker of its own."""

import uuid
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import PREFIX
from tests.deploy.nginx import Nginx, nginx
from tests.e2e.conftest import analyse, launched

COOKIE = "pneumonet_worker"


def _worker(proxy: Nginx, cookie: str) -> str:
    answer = httpx.get(f"{proxy.url}{PREFIX}/health", headers={"Cookie": f"{COOKIE}={cookie}"})
    return proxy.worker_of(answer.headers["x-request-id"])


@pytest.mark.browser
def test_two_visitors_of_one_address_get_their_answers_from_two_workers(
    workers: list[str],
    film: bytes,
    tmp_path: Path,
) -> None:
    (tmp_path / "film.png").write_bytes(film)
    with launched() as chromium, nginx(tmp_path / "run", workers, PNEUMONET_ROOT_PATH=PREFIX) as proxy:

        def visit(cookie: str | None) -> str:
            context = chromium.new_context()
            if cookie is not None:
                context.add_cookies([{"name": COOKIE, "value": cookie, "url": f"{proxy.url}{PREFIX}/"}])
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(f"{proxy.url}{PREFIX}/")
            page.wait_for_selector("#film-file input[type=file]", state="attached")
            analyse(page, tmp_path / "film.png")
            assert page.locator("#result .pn-result").count() == 1, page.inner_text("#result")
            [kept] = [cookie["value"] for cookie in context.cookies() if cookie["name"] == COOKIE]
            context.close()
            return str(kept)

        first = _worker(proxy, visit(None))
        others = (uuid.uuid4().hex for _ in range(100))
        other = next(cookie for cookie in others if _worker(proxy, cookie) != first)
        assert visit(other) == other
