"""The same film gives the same answer at every door."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pneumonet.cli import main
from pneumonet.model import PneumoNet
from pneumonet.rendering import overlay
from tests.support.films import encoded, phantom
from tests.web.conftest import Running, dicom
from tests.web.test_rest import KEYS, as_json

# What depends on the request, or on the door by contract.
_OF_THE_REQUEST = {"request_id", "duration_ms", "timings", "gradcam_image"}

FILMS: dict[str, Callable[[], bytes]] = {
    "film.jpg": lambda: encoded(phantom(seed=2), "JPEG"),
    "film16.png": lambda: encoded(phantom(seed=3).astype(np.uint16) * 200 + 1000),
    "film.dcm": lambda: dicom(phantom(seed=4).astype(np.uint16) * 16),
}


def answers(running: Running, name: str, film: bytes) -> dict[str, dict[str, Any]]:
    with running.http() as http:
        by_json = http.post("/predict", json=as_json(film)).json()
    return {
        "multipart": running.post(film, name).json(),
        "json": by_json,
        "gradio_client": running.ask_client(film, name)[0],
        "gradio rest": running.ask_raw([running.upload(film, name)])[1][0],
        "explain": running.ask_raw([running.upload(film, name)], "explain")[1][0],
    }


def pixels(picture: bytes) -> NDArray[np.uint8]:
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    return np.asarray(image)


@pytest.mark.parametrize("name", FILMS)
def test_the_web_doors_and_python_agree(running: Running, tiny_model: PneumoNet, name: str) -> None:
    film = FILMS[name]()
    expected = tiny_model.predict(film).to_dict()
    with running.http() as http:
        assert http.get("/health").json()["model"] == expected["model"]
    for door, answer in answers(running, name, film).items():
        assert (answer.pop("maps", None) is not None) == (door == "explain")
        assert set(answer) | {"gradcam_image"} == KEYS, door
        assert {key: value for key, value in answer.items() if key not in _OF_THE_REQUEST} == expected, door


@pytest.mark.parametrize("name", FILMS)
def test_the_heatmap_is_the_same_at_every_door(
    running: Running,
    tiny_model: PneumoNet,
    tiny_snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    film = FILMS[name]()
    finding = tiny_model.predict(film)
    expected = overlay(finding)
    of_rest = running.post(film, name).json()["gradcam_image"].partition(",")[2]
    np.testing.assert_array_equal(pixels(base64.b64decode(of_rest)), expected)
    _, of_gradio = running.ask_client(film, name)
    np.testing.assert_array_equal(pixels(Path(of_gradio).read_bytes()), expected)
    maps = running.ask_client(film, name, api_name="/explain")["maps"]
    of_explain = maps["ensemble"][finding.label].partition(",")[2]
    np.testing.assert_array_equal(pixels(base64.b64decode(of_explain)), expected)
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    (tmp_path / name).write_bytes(film)
    assert main(["predict", str(tmp_path / name), "--overlay", str(tmp_path)]) == 0
    np.testing.assert_array_equal(pixels(next(tmp_path.glob("*.overlay.png")).read_bytes()), expected)


def test_the_shell_agrees(
    running: Running,
    tiny_snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    for name, make in FILMS.items():
        (tmp_path / name).write_bytes(make())
    assert main(["predict", "--json", *(str(tmp_path / name) for name in FILMS)]) == 0
    told = capsys.readouterr().out
    for line, (name, make) in zip(told.splitlines(), FILMS.items(), strict=True):
        shell, rest = json.loads(line), running.post(make(), name).json()
        assert set(shell) == KEYS | {"file"}
        assert all(shell[key] == rest[key] for key in KEYS - _OF_THE_REQUEST)
