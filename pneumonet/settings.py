"""Settings: every environment variable that PneumoNet reads, in one place, checked at start."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from pneumonet.errors import ConfigError

DEFAULT_SNAPSHOT: Final = Path(__file__).resolve().parents[1] / "model_card"
DEVICES: Final = ("auto", "cpu", "cuda", "mps")
ENGINES: Final = ("auto", "torch", "openvino")
LOG_FORMATS: Final = ("json", "text")
METRICS: Final = ("private", "public")


@dataclass(frozen=True)
class OAuthSettings:
    """What Hugging Face gives a Space whose README says `hf_oauth: true`, and who may ask.

    Attributes:
        client_id: OAUTH_CLIENT_ID.
        client_secret: OAUTH_CLIENT_SECRET; signs the cookies too.
        host: SPACE_HOST, the name that visitors reach the Space by.
        users: PNEUMONET_OAUTH_USERS: the accounts that may ask.
        provider: OPENID_PROVIDER_URL.
    """

    client_id: str
    client_secret: str = field(repr=False)
    host: str
    users: tuple[str, ...]
    provider: str = "https://huggingface.co"


@dataclass(frozen=True)
class Settings:
    """What an operator may choose.

    Attributes:
        model: PNEUMONET_MODEL: a snapshot folder, or `org/name` on the Hub. Default: the committed `model_card/`.
        revision: PNEUMONET_REVISION: branch, tag or commit of the Hub repo. Default: the repo's default branch.
        device: PNEUMONET_DEVICE: auto, cpu, cuda or mps.
        engine: PNEUMONET_ENGINE: auto (OpenVINO on a CPU, else torch), torch or openvino.
        cache_dir: PNEUMONET_CACHE_DIR: where the converted backbones are kept. Default: `pneumonet` below
            XDG_CACHE_HOME or `~/.cache`.
        host: PNEUMONET_HOST: the address to serve at. Default 127.0.0.1, and 0.0.0.0 on a Space
            (GRADIO_SERVER_NAME).
        port: PNEUMONET_PORT: the port to serve at. Default 7860 (GRADIO_SERVER_PORT on a Space).
        root_path: PNEUMONET_ROOT_PATH: the prefix that a reverse proxy strips, such as `/pneumonet`.
        max_upload_bytes: PNEUMONET_MAX_UPLOAD_MB: the largest file taken, in units of 1,000,000 bytes. Default 10.
        max_pixels: PNEUMONET_MAX_MEGAPIXELS: the most pixels a header may declare, in units of 1,000,000. Default 40.
        decoding_pixels: PNEUMONET_DECODING_MEGAPIXELS: how many pixels are decoded at a time, in units of 1,000,000; a
            film of more is decoded alone. Default: as many as the largest film may have.
        max_waiting: PNEUMONET_MAX_WAITING: how many films may wait their turn before the answer is "busy". Default 32.
        request_seconds: PNEUMONET_REQUEST_SECONDS: how long a film may wait and be analysed before its caller is told
            that it took too long. Default 60.
        requests_per_minute: PNEUMONET_REQUESTS_PER_MINUTE: how many POST requests one client may send in a minute, in
            bursts of a quarter of them; 0 for no limit. Default 240. A browser sends three a film. The download of a
            report counts as one.
        open_requests: PNEUMONET_OPEN_REQUESTS: how many requests one client may have open at a time; 0 for no limit.
            Default 100. An open page holds one.
        cache_seconds: PNEUMONET_CACHE_SECONDS: how long an answer is kept for the same film again, without any pixel of
            it. Default 0: nothing is kept.
        redis_url: PNEUMONET_REDIS_URL: the Redis server that keeps answers for several processes, such as
            `redis://host:6379/0`. Default: each process's own memory.
        batch_wait_ms: PNEUMONET_BATCH_WAIT_MS: how many milliseconds a film may wait for others to share its pass; 0
            for a pass each. Default: 10 on an accelerator, 0 on a CPU.
        metrics: PNEUMONET_METRICS: private, GET /metrics answers this machine, or whoever logs in where that is wanted;
            or public, everybody.
        log_format: PNEUMONET_LOG_FORMAT: json, one object a line, or text.
        otlp_endpoint: OTEL_EXPORTER_OTLP_ENDPOINT: the OpenTelemetry collector that gets a trace of each answer, over
            HTTP, such as `http://collector:4318`. Default: none is sent.
        allowed_origins: PNEUMONET_ALLOWED_ORIGINS: the other sites whose pages may ask, such as
            `https://example.org`, with commas between. Default none.
        mcp: PNEUMONET_MCP: 1 opens the door for agents, Gradio's MCP server at `/gradio_api/mcp/`
            (requirements-mcp.txt). Default 0.
        is_space: SPACE_ID is set, as Hugging Face sets it on a Space.
        users: PNEUMONET_AUTH: who may ask, as `user:password` with commas between. Default everybody.
        oauth: PNEUMONET_OAUTH_USERS: the Hugging Face accounts that may ask, on a Space, with commas between.
    """

    model: str = str(DEFAULT_SNAPSHOT)
    revision: str | None = None
    device: str = "auto"
    engine: str = "auto"
    cache_dir: Path = field(default_factory=lambda: _cache_dir({}))
    host: str = "127.0.0.1"
    port: int = 7860
    root_path: str = ""
    max_upload_bytes: int = 10_000_000
    max_pixels: int = 40_000_000
    decoding_pixels: int = 40_000_000
    max_waiting: int = 32
    request_seconds: int = 60
    requests_per_minute: int = 240
    open_requests: int = 100
    cache_seconds: int = 0
    redis_url: str | None = field(default=None, repr=False)
    batch_wait_ms: int | None = None
    metrics: str = "private"
    log_format: str = "json"
    otlp_endpoint: str | None = None
    allowed_origins: tuple[str, ...] = ()
    mcp: bool = False
    is_space: bool = False
    users: Mapping[str, str] = field(default_factory=dict, repr=False)
    oauth: OAuthSettings | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from environment variables; an unset or empty one takes its default.

        Raises:
            ConfigError: If a value cannot be understood or is out of range.
        """
        values = os.environ if environment is None else environment
        megapixels = _number(values, ("PNEUMONET_MAX_MEGAPIXELS",), 40, 1, 1000)
        return cls(
            model=values.get("PNEUMONET_MODEL") or str(DEFAULT_SNAPSHOT),
            revision=values.get("PNEUMONET_REVISION") or None,
            device=_one_of(values, "PNEUMONET_DEVICE", DEVICES),
            engine=_one_of(values, "PNEUMONET_ENGINE", ENGINES),
            cache_dir=_cache_dir(values),
            host=values.get("PNEUMONET_HOST") or values.get("GRADIO_SERVER_NAME") or "127.0.0.1",
            port=_number(values, ("PNEUMONET_PORT", "GRADIO_SERVER_PORT"), 7860, 0, 65535),
            root_path=_root_path(values),
            max_upload_bytes=_number(values, ("PNEUMONET_MAX_UPLOAD_MB",), 10, 1, 1000) * 1_000_000,
            max_pixels=megapixels * 1_000_000,
            decoding_pixels=_number(values, ("PNEUMONET_DECODING_MEGAPIXELS",), megapixels, 1, 10_000) * 1_000_000,
            max_waiting=_number(values, ("PNEUMONET_MAX_WAITING",), 32, 0, 10_000),
            request_seconds=_number(values, ("PNEUMONET_REQUEST_SECONDS",), 60, 1, 3600),
            requests_per_minute=_number(values, ("PNEUMONET_REQUESTS_PER_MINUTE",), 240, 0, 1_000_000),
            open_requests=_number(values, ("PNEUMONET_OPEN_REQUESTS",), 100, 0, 1_000_000),
            cache_seconds=_number(values, ("PNEUMONET_CACHE_SECONDS",), 0, 0, 86_400),
            redis_url=_redis_url(values),
            batch_wait_ms=_number(values, ("PNEUMONET_BATCH_WAIT_MS",), None, 0, 1000),
            otlp_endpoint=_web_address(values, "OTEL_EXPORTER_OTLP_ENDPOINT"),
            metrics=_one_of(values, "PNEUMONET_METRICS", METRICS),
            log_format=_one_of(values, "PNEUMONET_LOG_FORMAT", LOG_FORMATS),
            allowed_origins=_origins(values),
            mcp=_one_of(values, "PNEUMONET_MCP", ("0", "1")) == "1",
            is_space=bool(values.get("SPACE_ID")),
            users=_users(values),
            oauth=_oauth(values),
        )


def _cache_dir(values: Mapping[str, str]) -> Path:
    if chosen := values.get("PNEUMONET_CACHE_DIR"):
        return Path(chosen).expanduser()
    # Not Path.home(), which raises for a user without one.
    return Path(values.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "pneumonet"


_Default = TypeVar("_Default", int, None)


def _one_of(values: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    value = (values.get(name) or choices[0]).lower()
    if value not in choices:
        raise ConfigError(f"Expected {name} to be one of {', '.join(choices)}, got {value!r}.")
    return value


def _number(
    values: Mapping[str, str], names: tuple[str, ...], default: _Default, low: int, high: int
) -> int | _Default:
    name = next((name for name in names if values.get(name)), None)
    if name is None:
        return default
    text = values[name]
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text) or not low <= int(text) <= high:
        raise ConfigError(f"Expected {name} to be a whole number from {low} to {high}, got {text!r}.")
    return int(text)


def _root_path(values: Mapping[str, str]) -> str:
    path = (values.get("PNEUMONET_ROOT_PATH") or "").rstrip("/")
    if path and not path.startswith("/"):
        raise ConfigError(f"Expected PNEUMONET_ROOT_PATH to start with a slash, got {path!r}.")
    return path


def _web_address(values: Mapping[str, str], name: str) -> str | None:
    address = values.get(name) or None
    if address is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", address):
        raise ConfigError(f"Expected {name} to be an address such as http://host:4318.")
    return address


def _redis_url(values: Mapping[str, str]) -> str | None:
    url = values.get("PNEUMONET_REDIS_URL") or None
    if url is not None and not values.get("PNEUMONET_CACHE_SECONDS"):
        raise ConfigError(
            "PNEUMONET_REDIS_URL is set, and PNEUMONET_CACHE_SECONDS, how long it keeps an answer, is not.",
            hint="Set PNEUMONET_CACHE_SECONDS to a number of seconds such as 600, or 0 to keep nothing.",
        )
    return url


def _origins(values: Mapping[str, str]) -> tuple[str, ...]:
    origins = tuple(_listed(values, "PNEUMONET_ALLOWED_ORIGINS"))
    for origin in origins:
        # No star: every page that a user has open could then send films in that user's name and read the answers.
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?", origin):
            raise ConfigError(
                f"Expected PNEUMONET_ALLOWED_ORIGINS to name origins such as https://example.org, got {origin!r}."
            )
    return origins


def _users(values: Mapping[str, str]) -> dict[str, str]:
    pairs = [entry.partition(":") for entry in _listed(values, "PNEUMONET_AUTH")]
    users = {user: password for user, _, password in pairs}
    if not all(user and password for user, password in users.items()) or len(users) < len(pairs):
        # The value itself is a secret and stays out of the message.
        raise ConfigError("Expected PNEUMONET_AUTH to be user:password, or several with commas between.")
    return users


def _oauth(values: Mapping[str, str]) -> OAuthSettings | None:
    users = tuple(_listed(values, "PNEUMONET_OAUTH_USERS"))
    if not users:
        return None
    names = ("SPACE_ID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "SPACE_HOST")
    if missing := [name for name in names if not values.get(name)]:
        # Not an open door: who lists accounts wants nobody else.
        raise ConfigError(
            f"PNEUMONET_OAUTH_USERS is set, and {', '.join(missing)} is not.",
            hint="On a Space, put `hf_oauth: true` into its README's front matter; elsewhere use PNEUMONET_AUTH.",
        )
    provider = (_web_address(values, "OPENID_PROVIDER_URL") or OAuthSettings.provider).rstrip("/")
    return OAuthSettings(
        client_id=values["OAUTH_CLIENT_ID"],
        client_secret=values["OAUTH_CLIENT_SECRET"],
        host=values["SPACE_HOST"],
        users=users,
        provider=provider,
    )


def _listed(values: Mapping[str, str], name: str) -> list[str]:
    return [entry.strip() for entry in (values.get(name) or "").split(",") if entry.strip()]
