"""Two workers behind Debian's nginx with deploy/nginx.conf: whoever asks must not notice."""

import base64
import contextlib
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file

from pneumonet.settings import Settings
from tests.deploy.conftest import LISTED, PREFIX, Start
from tests.deploy.nginx import NGINX, TEMPLATE, Nginx, nginx, rendered
from tests.support.films import encoded, phantom

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx: apt-get install nginx")
PAGE = PREFIX + "/"
PREDICT = PREFIX + "/predict"
API = PREFIX + "/gradio_api"
SHAPE = {"error", "code", "hint", "request_id"}


def _visitor(url: str, address: str = "127.0.0.1") -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, transport=httpx.HTTPTransport(local_address=address))


def _file_data(path: str) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def _events(visitor: httpx.Client, path: str) -> Iterator[tuple[float, str]]:
    """Yield each line of a stream with the time at which it came."""
    with visitor.stream("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line:
                yield time.monotonic(), line


def _upload(visitor: httpx.Client, film: bytes) -> str:
    uploaded = visitor.post(f"{API}/upload", files={"files": ("film.png", film)})
    uploaded.raise_for_status()
    path: str = uploaded.json()[0]
    return path


def _ask_as_curl(visitor: httpx.Client, film: bytes) -> str:
    """Take the two steps of Gradio's REST; returns the event that ends the stream."""
    joined = visitor.post(f"{API}/call/predict", json={"data": [_file_data(_upload(visitor, film)), False]})
    joined.raise_for_status()
    lines = [line for _, line in _events(visitor, f"{API}/call/predict/{joined.json()['event_id']}")]
    return [line for line in lines if line.startswith("event:") and "heartbeat" not in line][-1]


def _ask_as_page(visitor: httpx.Client, session: str, film: bytes) -> list[tuple[float, dict[str, Any]]]:
    """Take the steps that the page takes; returns the messages and when they came."""
    config = visitor.get(f"{PREFIX}/config").json()
    number = next(event["id"] for event in config["dependencies"] if event["api_name"] == "predict")
    data = {"data": [_file_data(_upload(visitor, film)), False], "fn_index": number, "session_hash": session}
    visitor.post(f"{API}/queue/join", json=data).raise_for_status()
    stream = _events(visitor, f"{API}/queue/data?session_hash={session}")
    return [(at, json.loads(line.removeprefix("data: "))) for at, line in stream]


@contextlib.contextmanager
def _listening(backlog: int = 128) -> Iterator[socket.socket]:
    """Listen and say nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener


@contextlib.contextmanager
def _deaf() -> Iterator[str]:
    """Yield an address at which a connection is neither taken nor refused, as of a machine that is gone."""
    with _listening(backlog=0) as listener, contextlib.ExitStack() as stack:
        # Of a full line Linux drops whoever comes next.
        with contextlib.suppress(TimeoutError):
            for _ in range(10):
                stack.enter_context(socket.create_connection(listener.getsockname(), 0.2))
            raise AssertionError("the line is never full")
        yield "{}:{}".format(*listener.getsockname())


def _without(pattern: str) -> Callable[[str], str]:
    def change(template: str) -> str:
        changed = re.sub(pattern, "", template)
        assert changed != template
        return changed

    return change


def test_the_template_with_the_defaults_of_the_image_is_valid(tmp_path: Path) -> None:
    own = {"NGINX_RUN": str(tmp_path), "NGINX_WORKERS": "server 127.0.0.1:7860;"}
    (tmp_path / "nginx.conf").write_text(rendered(**own))
    command = [str(NGINX), "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestStickiness:
    def test_gradio_client_asks_and_downloads(self, hashing: Nginx, film: bytes, tmp_path: Path) -> None:
        (tmp_path / "film.png").write_bytes(film)
        for _ in range(3):
            client = Client(hashing.url + PAGE, verbose=False, analytics_enabled=False, download_files=tmp_path)
            finding, picture = client.predict(handle_file(tmp_path / "film.png"), api_name="/predict")
            client.close()
            assert finding["prediction"]
            assert Path(picture).read_bytes()[:4] == b"\x89PNG"

    def test_curl_keeps_its_worker_by_its_address(self, hashing: Nginx, film: bytes) -> None:
        workers = set()
        for last in range(2, 10):
            with _visitor(hashing.url, f"127.0.0.{last}") as visitor:
                assert _ask_as_curl(visitor, film) == "event: complete"
                workers.add(hashing.worker_of(visitor.get(f"{PREFIX}/health").headers["x-request-id"]))
        assert len(workers) == 2, "with one worker asked, this shows nothing"

    def test_browsers_behind_one_address_are_spread_and_keep_their_workers(self, hashing: Nginx, film: bytes) -> None:
        def visit(number: int) -> set[str]:
            with _visitor(hashing.url) as browser:
                page = browser.get(PAGE)
                assert re.fullmatch(
                    rf"pneumonet_worker=[0-9a-f]{{32}}; Path={PAGE}; HttpOnly; SameSite=Lax", page.headers["set-cookie"]
                )
                assert "set-cookie" not in browser.get(PAGE).headers
                messages = [message for _, message in _ask_as_page(browser, f"browser{number}", film)]
                completed = [m for m in messages if m["msg"] == "process_completed"]
                assert [m["success"] for m in completed] == [True], messages
                ids = [browser.get(f"{PREFIX}/health").headers["x-request-id"] for _ in range(3)]
            return {hashing.worker_of(request_id) for request_id in ids}

        with ThreadPoolExecutor(4) as pool:
            visited = list(pool.map(visit, range(8)))
        assert all(len(workers) == 1 for workers in visited)
        assert len(set.union(*visited)) == 2

    def test_without_it_the_same_flows_break(self, workers: list[str], film: bytes, tmp_path: Path) -> None:
        scattered = _without(r"hash \$visitor [^;]*;")
        with nginx(tmp_path / "run", workers, scattered, PNEUMONET_ROOT_PATH=PREFIX) as proxy:
            outcomes = []
            for _ in range(4):
                with _visitor(proxy.url) as visitor:
                    try:
                        outcomes.append(_ask_as_curl(visitor, film))
                    except httpx.HTTPStatusError:
                        outcomes.append("refused")
        assert "event: complete" not in outcomes

    def test_a_cookie_of_another_shape_does_not_choose(self, hashing: Nginx) -> None:
        with _visitor(hashing.url) as visitor:
            by_address = hashing.worker_of(visitor.get(f"{PREFIX}/health").headers["x-request-id"])
            for forged in ("a", "z" * 32, "0" * 33, "../x"):
                headers = {"Cookie": f"pneumonet_worker={forged}"}
                answer = visitor.get(f"{PREFIX}/health", headers=headers)
                assert hashing.worker_of(answer.headers["x-request-id"]) == by_address
                assert "pneumonet_worker=" in visitor.get(PAGE, headers=headers).headers["set-cookie"]

    def test_plain_films_of_one_caller_are_shared_out(self, proxy: Nginx, film: bytes) -> None:
        def send(_: int) -> str:
            answer = httpx.post(proxy.url + PREDICT, files={"file": ("film.png", film)}, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["gradcam_image"]
            return proxy.worker_of(answer.headers["x-request-id"])

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(send, range(12)))) == 2


@pytest.fixture(scope="module")
def slow_film() -> bytes:
    """A film that takes a second or so to decode."""
    return encoded(np.kron(phantom(600, 600), np.ones((10, 10), np.uint8)))


class TestStreams:
    @staticmethod
    def _spread(proxy: Nginx, session: str, film: bytes) -> float:
        """Return the seconds between the first message and the answer."""
        with _visitor(proxy.url) as visitor:
            messages = _ask_as_page(visitor, session, film)
        kinds = {message["msg"]: at for at, message in messages}
        return kinds["process_completed"] - messages[0][0]

    def test_the_first_event_arrives_long_before_the_last(self, proxy: Nginx, slow_film: bytes) -> None:
        assert self._spread(proxy, "stream", slow_film) > 0.2

    def test_with_buffering_they_would_come_together(
        self, workers: list[str], slow_film: bytes, tmp_path: Path
    ) -> None:
        # In HTTP/1.1 nginx passes each chunk on even so; in its default, 1.0, it waits for a buffer to fill.
        buffered = _without(r"proxy_buffering off;|proxy_http_version 1.1;")
        with nginx(tmp_path / "run", workers, buffered, PNEUMONET_ROOT_PATH=PREFIX) as proxy:
            assert self._spread(proxy, "buffered", slow_film) < 0.1

    def test_a_stream_that_stays_open_says_something_at_once(self, proxy: Nginx) -> None:
        with _visitor(proxy.url) as visitor:
            started = time.monotonic()
            at, line = next(_events(visitor, f"{API}/heartbeat/open"))
        assert line == "data: ALIVE"
        assert at - started < 5


class TestLimits:
    def test_a_film_too_large_is_refused_as_by_the_app(self, proxy: Nginx, workers: list[str]) -> None:
        film = bytes(11_000_000)
        told = []
        for url in (proxy.url, f"http://{workers[0]}"):
            answer = httpx.post(url + PREDICT, files={"file": ("film.png", film)}, timeout=60)
            assert answer.status_code == 413
            told.append(answer.json())
        assert told[0].keys() == SHAPE
        assert told[0] | {"request_id": ""} == told[1] | {"request_id": ""}
        assert told[0]["code"] == "file_too_large"

    @pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
    def test_a_body_too_large_for_nginx_too(self, proxy: Nginx, workers: list[str], declared: bool) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + bytes(20_000_000)
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
        answer = httpx.post(proxy.url + PREDICT, content=body if declared else chunks, headers=headers, timeout=60)
        own = httpx.post(f"http://{workers[0]}{PREDICT}", content=body, headers=headers, timeout=60).json()
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        assert re.fullmatch("[0-9a-f]{16}", told["request_id"])
        assert answer.headers.get_list("x-request-id") == [told["request_id"]]
        assert told | {"request_id": ""} == own | {"request_id": ""}

    def test_the_largest_film_passes_as_json_and_touches_no_disk(self, proxy: Nginx) -> None:
        film = encoded(phantom())
        film += bytes(10_000_000 - len(film))
        answer = httpx.post(proxy.url + PREDICT, json={"file_data": base64.b64encode(film).decode()}, timeout=60)
        assert answer.status_code == 200, answer.text
        assert [said for said in ("/body/", "/proxy/", "temporary file") if said in proxy.complaints()] == []
        assert [path for path in proxy.folder.rglob("*") if path.is_file()] == [
            path for path in proxy.folder.iterdir() if path.name in ("err", "nginx.conf", "nginx.pid", "out")
        ]

    def test_with_nginx_s_own_buffers_it_would_lie_on_the_disk(self, workers: list[str], tmp_path: Path) -> None:
        buffered = _without(r"proxy_request_buffering off;")
        with nginx(tmp_path / "run", workers, buffered, PNEUMONET_ROOT_PATH=PREFIX) as proxy:
            httpx.post(proxy.url + PREDICT, files={"file": ("film.png", bytes(9_000_000))}, timeout=60)
            assert "/body/0" in proxy.complaints()

    def test_the_app_gives_up_before_nginx_does(self) -> None:
        conf = rendered()
        patience = re.search(r"proxy_read_timeout (\d+)s;", conf)
        assert patience is not None
        # A film, its picture and its report have this one deadline together (test_times.py).
        assert Settings().request_seconds < int(patience[1]) <= 2 * Settings().request_seconds
        again = re.search(r"proxy_next_upstream_timeout (\d+)s;", conf)
        assert again is not None
        assert int(again[1]) < int(patience[1]), "what was sent would be sent to a second worker"
        body = re.search(r"client_max_body_size (\d+)m;", conf)
        assert body is not None
        as_base64 = Settings().max_upload_bytes * 4 / 3 + 64 * 1024
        assert as_base64 < int(body[1]) * 2**20 < 1.2 * as_base64
        assert f"larger than {Settings().max_upload_bytes / 1e6:g} MB" in conf

    def test_each_address_has_a_rate_of_its_own(self, workers: list[str], tmp_path: Path) -> None:
        with nginx(tmp_path / "run", workers[:1], PNEUMONET_ROOT_PATH=PREFIX) as proxy:

            def statuses(address: str, most: int, **headers: str) -> set[int]:
                seen = set()
                with _visitor(proxy.url, address) as visitor:
                    for _ in range(most):
                        seen.add(visitor.post(PREDICT, headers=headers).status_code)
                        if 429 in seen:
                            break
                return seen

            assert 429 in statuses("127.0.0.21", 1000)
            assert statuses("127.0.0.22", 3) == {400}
            forged = {"X-Forwarded-For": "127.0.0.23", "X-Real-IP": "127.0.0.23"}
            assert 429 in statuses("127.0.0.21", 20, **forged), "whoever forges an address keeps its own"
            assert 429 in statuses("127.0.0.99", 1000, **{"X-Forwarded-For": "127.0.0.24"})
            assert statuses("127.0.0.99", 3, **{"X-Forwarded-For": "127.0.0.25"}) == {400}, "the proxy before is told"


class TestHeaders:
    def test_a_listed_site_gets_the_cors_header_once_and_no_other_does(self, proxy: Nginx, film: bytes) -> None:
        for path in (PREDICT, f"{API}/upload"):
            files = {"file" if path == PREDICT else "files": ("film.png", film)}
            answer = httpx.post(proxy.url + path, files=files, headers={"Origin": LISTED}, timeout=60)
            assert answer.status_code == 200
            assert answer.headers.get_list("access-control-allow-origin") == [LISTED]
            answer = httpx.post(proxy.url + path, files=files, headers={"Origin": "https://evil.example"}, timeout=60)
            assert answer.headers.get_list("access-control-allow-origin") == []

    def test_the_page_and_all_it_names_load(self, proxy: Nginx) -> None:
        with _visitor(proxy.url) as visitor:
            page = visitor.get(PREFIX, follow_redirects=True)
            assert str(page.url) == proxy.url + PAGE
            # Gradio names the manifest without the prefix; nothing else asks for it.
            named = set(re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)) - {"/manifest.json"}
            for name in {name for name in named if not name.startswith("https://")}:
                assert visitor.get(httpx.URL(proxy.url + PAGE).join(name)).status_code == 200, name
            assert visitor.get(f"{PREFIX}/config").json()["root"] == proxy.url + PREFIX

    def test_only_the_proxy_before_is_believed_about_the_scheme(self, proxy: Nginx) -> None:
        headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Gradio-Server": "http://evil"}
        with _visitor(proxy.url) as stranger, _visitor(proxy.url, "127.0.0.99") as trusted:
            assert stranger.get(f"{PREFIX}/config", headers=headers).json()["root"] == proxy.url + PREFIX
            secure = proxy.url.replace("http://", "https://") + PREFIX
            assert trusted.get(f"{PREFIX}/config", headers=headers).json()["root"] == secure

    @pytest.mark.parametrize("path", ["/", "/predict", f"{PREFIX}/metrics", "/pneumonetx/health"])
    def test_what_is_not_offered_is_told_in_json(self, proxy: Nginx, path: str) -> None:
        answer = httpx.get(proxy.url + path)
        assert answer.status_code == 404
        assert answer.json().keys() == SHAPE
        assert answer.json()["code"] == "not_found"

    def test_what_is_no_request_is_told_in_json(self, proxy: Nginx) -> None:
        host, port = proxy.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), 10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\n\r\n")
            head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["code"] == "bad_request"

    def test_the_log_holds_no_address_path_or_name(self, proxy: Nginx, film: bytes) -> None:
        with _visitor(proxy.url, "127.0.0.77") as visitor:
            visitor.post(PREDICT, files={"file": ("jane-doe.png", film)})
        assert set(proxy.lines()[-1]) == {"time", "status", "method", "seconds", "worker", "request_id"}
        log = (proxy.folder / "out").read_text()
        assert [said for said in ("127.0.0.77", "jane", "predict", "film") if said in log] == []


class TestFailures:
    def test_when_a_worker_dies_the_other_answers(
        self, workers: list[str], start_worker: Start, film: bytes, tmp_path: Path
    ) -> None:
        mortal, process = start_worker()
        with nginx(tmp_path / "run", [workers[0], mortal], PNEUMONET_ROOT_PATH=PREFIX) as proxy:
            visitors = [_visitor(proxy.url, f"127.0.0.{last}") for last in range(2, 10)]
            asked = [visitor.get(f"{PREFIX}/health").headers["x-request-id"] for visitor in visitors]
            assert {proxy.worker_of(request_id) for request_id in asked} == {workers[0], mortal}
            process.kill()
            process.wait()
            for visitor in visitors:
                assert _ask_as_curl(visitor, film) == "event: complete"
                assert visitor.post(PREDICT, files={"file": ("film.png", film)}).status_code == 200
                visitor.close()

    def test_a_worker_whose_machine_is_gone_is_passed_over(
        self, workers: list[str], film: bytes, tmp_path: Path
    ) -> None:
        def impatient(template: str) -> str:
            return template.replace("proxy_connect_timeout 3s", "proxy_connect_timeout 200ms")

        with (
            _deaf() as deaf,
            nginx(tmp_path / "run", [deaf, workers[0]], impatient, PNEUMONET_ROOT_PATH=PREFIX) as proxy,
        ):
            answer = httpx.post(proxy.url + PREDICT, files={"file": ("film.png", film)}, timeout=60)
            assert answer.status_code == 200
            tried = {proxy.worker_of(answer.headers["x-request-id"])}
            for last in range(2, 10):
                with _visitor(proxy.url, f"127.0.0.{last}") as visitor:
                    health = visitor.get(f"{PREFIX}/health")
                    assert health.status_code == 200
                    tried.add(proxy.worker_of(health.headers["x-request-id"]))
        assert f"{deaf}, {workers[0]}" in tried, "without one that was tried in vain, this shows nothing"

    def test_what_a_worker_was_sent_is_sent_to_no_other(self, tmp_path: Path) -> None:
        def impatient(template: str) -> str:
            return template.replace("proxy_next_upstream_timeout 10s", "proxy_next_upstream_timeout 500ms")

        with _listening() as first, _listening() as second:
            names = ["{}:{}".format(*listener.getsockname()) for listener in (first, second)]
            with nginx(tmp_path / "run", names, impatient, PNEUMONET_ROOT_PATH=PREFIX, NGINX_READ_SECONDS="1") as proxy:
                asked = [("POST", PREDICT, b"x"), ("POST", f"{API}/upload", b"x"), ("GET", f"{PREFIX}/health", None)]
                with ThreadPoolExecutor(3) as pool:
                    sent = [
                        pool.submit(httpx.request, method, proxy.url + path, content=body, timeout=60)
                        for method, path, body in asked
                    ]
                    told = [answer.result().json()["code"] for answer in sent]
                assert told == ["took_too_long"] * 3
                assert [line["worker"] for line in proxy.lines() if "," in line["worker"]] == []

    def test_when_no_worker_is_there_it_is_said_in_json(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nowhere = f"127.0.0.1:{taken.getsockname()[1]}"
            with nginx(tmp_path / "run", [nowhere], PNEUMONET_ROOT_PATH=PREFIX) as proxy:
                answer = httpx.post(proxy.url + PREDICT, files={"file": ("film.png", bytes(100_000))}, timeout=60)
        assert answer.status_code == 503
        assert answer.json().keys() == SHAPE
        assert answer.json()["code"] == "model_unavailable"
        assert answer.headers["retry-after"] == "5"

    def test_a_worker_that_says_nothing_is_given_up(self, tmp_path: Path) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            name = f"127.0.0.1:{silent.getsockname()[1]}"
            with nginx(tmp_path / "run", [name], PNEUMONET_ROOT_PATH=PREFIX, NGINX_READ_SECONDS="1") as proxy:
                answer = httpx.post(proxy.url + PREDICT, content=b"x", timeout=60)
        assert answer.status_code == 503
        assert answer.json()["code"] == "took_too_long"

    def test_the_template_names_no_variable_that_the_image_does_not_set(self) -> None:
        assert "${" in TEMPLATE
        assert "${" not in rendered()
