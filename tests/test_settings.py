"""Settings from the environment, and what a wrong one says."""

import pytest

from pneumonet.errors import ConfigError
from pneumonet.settings import DEFAULT_SNAPSHOT, Settings


def test_defaults_serve_the_committed_snapshot_at_7860() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.model, settings.port, settings.host) == (str(DEFAULT_SNAPSHOT), 7860, "127.0.0.1")


def test_values_are_read() -> None:
    settings = Settings.from_environment(
        {
            "PNEUMONET_MODEL": "org/name",
            "PNEUMONET_REVISION": "v1",
            "PNEUMONET_PORT": "8000",
            "PNEUMONET_MAX_UPLOAD_MB": "3",
            "PNEUMONET_ROOT_PATH": "/pneumo/",
        }
    )
    assert (settings.model, settings.revision, settings.port) == ("org/name", "v1", 8000)
    assert (settings.max_upload_bytes, settings.root_path) == (3_000_000, "/pneumo")


def test_a_redis_that_would_keep_nothing_is_told() -> None:
    url = "redis://user:secret@host:6379/0"
    with pytest.raises(ConfigError, match="PNEUMONET_CACHE_SECONDS") as raised:
        Settings.from_environment({"PNEUMONET_REDIS_URL": url})
    assert "secret" not in raised.value.told
    for seconds in ("600", "0"):
        # Nothing may be kept where that is said outright.
        settings = Settings.from_environment({"PNEUMONET_REDIS_URL": url, "PNEUMONET_CACHE_SECONDS": seconds})
        assert (settings.redis_url, settings.cache_seconds) == (url, int(seconds))


def test_a_space_s_own_variables_are_followed() -> None:
    settings = Settings.from_environment({"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7861"})
    assert (settings.host, settings.port) == ("0.0.0.0", 7861)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PNEUMONET_PORT", "http"),
        ("PNEUMONET_PORT", "70000"),
        ("PNEUMONET_PORT", "-1"),
        ("PNEUMONET_MAX_UPLOAD_MB", "0"),
        ("PNEUMONET_MAX_MEGAPIXELS", "1.5"),
        ("PNEUMONET_DECODING_MEGAPIXELS", "0"),
        ("PNEUMONET_DEVICE", "tpu"),
        ("PNEUMONET_ROOT_PATH", "pneumo"),
    ],
)
def test_a_wrong_value_names_the_variable_and_what_was_expected(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        Settings.from_environment({name: value})
