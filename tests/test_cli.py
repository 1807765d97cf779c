"""The shell's door, in process and as a process."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pneumonet.cli import main
from pneumonet.finding import DISCLAIMER
from pneumonet.language import LANGUAGES
from pneumonet.model import PneumoNet
from tests.support.films import encoded, phantom
from tests.web.test_bad_input import FILMS


@pytest.fixture(autouse=True)
def _tiny(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    path.write_bytes(encoded(phantom()))
    return path


def test_json_lines_say_what_python_says_and_name_each_file(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_model: PneumoNet
) -> None:
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert main(["predict", str(film), str(text), str(film), "--json"]) == 1
    first, second, third = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    expected = tiny_model.predict(film).to_dict()
    assert {key: first[key] for key in expected} == expected
    assert first["file"] == third["file"] == str(film)
    assert (second["file"], second["code"]) == (str(text), "unsupported_format")
    assert second["error"]


BAD_FILES: dict[str, tuple[str, Callable[[], bytes] | None]] = {
    "empty.png": FILMS["empty.png"][::2],
    "text.png": FILMS["text.png"][::2],
    "cut.jpg": FILMS["cut.jpg"][::2],
    "cut.dcm": FILMS["cut.dcm"][::2],
    "no-pixels.dcm": FILMS["no-pixels.dcm"][::2],
    "huge.png": FILMS["huge.png"][::2],
    "noise.bin": ("file_too_large", lambda: np.random.default_rng(0).bytes(11_000_000)),
    "folder.png": ("unreadable_image", None),
    "missing.png": ("unreadable_image", None),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_and_the_next_good_one_answered(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, make = BAD_FILES[name]
    bad = tmp_path / name
    if make is not None:
        bad.write_bytes(make())
    elif name == "folder.png":
        bad.mkdir()
    assert main(["predict", "--json", str(bad), str(film)]) == 1
    told = capsys.readouterr()
    first, second = (json.loads(line) for line in told.out.splitlines())
    assert set(first) == {"file", "error", "code", "hint"}
    assert (first["file"], first["code"]) == (str(bad), code)
    assert (second["file"], "prediction" in second) == (str(film), True)
    assert "Traceback" not in told.err


def test_table_names_the_film_its_answer_and_what_this_is(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(film)]) == 0
    out = capsys.readouterr().out
    assert "film.png" in out
    assert "%" in out
    assert "Not a medical device" in out


def test_overlay_is_written_as_png_of_the_film_s_size(film: Path, tmp_path: Path) -> None:
    assert main(["predict", str(film), "--overlay", str(tmp_path / "out")]) == 0
    picture = Image.open(tmp_path / "out" / "film.overlay.png")
    assert (picture.format, picture.size) == ("PNG", Image.open(film).size)


def test_overlays_never_overwrite_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = [tmp_path / name / "film.png" for name in "ab"]
    for film in films:
        film.parent.mkdir()
        film.write_bytes(encoded(phantom()))
    assert main(["predict", *map(str, films), "--overlay", str(tmp_path / "out")]) == 1
    assert "film.overlay.png" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_overlay_folder_that_cannot_be_is_a_sentence(film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(film), "--overlay", str(film)]) == 1
    assert "cannot be made" in capsys.readouterr().err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder whose cache is shared: converting the weights takes most of a start."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(
    "name", ["p\u00e4.png", "two\nlines.png", "bad\udcff.png"], ids=["umlaut", "newline", "not-utf8"]
)
def test_any_file_name_is_one_row_on_any_terminal(tiny_snapshot: Path, home: Path, tmp_path: Path, name: str) -> None:
    film = tmp_path / name
    film.write_bytes(encoded(phantom()))
    process = subprocess.run(
        [sys.executable, "-m", "pneumonet", "predict", str(film), str(film)],
        env={
            "PNEUMONET_MODEL": str(tiny_snapshot),
            "PATH": "",
            "HOME": str(home),
            "PYTHONIOENCODING": "ascii:strict",
        },
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    assert sum("%" in line for line in process.stdout.splitlines()) == 2


def test_a_refused_film_is_answered_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = tmp_path / "blank.png"
    blank.write_bytes(encoded(np.zeros((100, 100), dtype=np.uint8)))
    assert main(["predict", str(blank), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == "not_admitted"
    assert main(["predict", str(blank), "--json", "--force"]) == 0
    assert json.loads(capsys.readouterr().out)["admission"]["accepted"] is False


def test_info_and_pull_name_the_revision(capsys: pytest.CaptureFixture[str], tiny_model: PneumoNet) -> None:
    assert main(["info"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["revision"] == tiny_model.info.revision
    assert main(["pull"]) == 0
    assert tiny_model.info.revision in capsys.readouterr().out


def test_a_wrong_setting_is_one_sentence_and_exit_code_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PNEUMONET_PORT", "http")
    assert main(["info"]) == 2
    assert "PNEUMONET_PORT" in capsys.readouterr().err


def test_a_missing_model_is_one_sentence_and_exit_code_one(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pneumonet", "info"],
        env={"PNEUMONET_MODEL": str(tmp_path / "nowhere"), "PATH": "", "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_spaces_that_do_not_break_are_spaces_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = [Image.fromarray(phantom(seed=seed)) for seed in (1, 2)]
    pages[0].save(tmp_path / "film.tiff", save_all=True, append_images=pages[1:])
    assert main(["predict", str(tmp_path / "film.tiff"), "--lang", "fr"]) == 0
    out = capsys.readouterr().out
    # The catalogue has a no-break space before each colon and semicolon, of one kind or the other.
    assert "note: Nombre de trames du fichier : 2 ; la trame 1 a \xe9t\xe9 lue." in out
    assert "\\" not in out


def test_sentences_and_reports_are_in_the_language_asked_for(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    german, out = LANGUAGES["de"], tmp_path / "out"
    asked = ["predict", str(film), "--json", "--lang", "de-CH", "--report", "json", "--report-dir", str(out)]
    assert main(asked) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["disclaimer"] == german(DISCLAIMER)
    (report,) = out.iterdir()
    assert json.loads(report.read_text(encoding="utf-8"))["language"] == "de"
    assert main(["predict", str(film), "--lang", "de"]) == 0
    assert german(answer["risk_level"]) in capsys.readouterr().out
    assert main(["predict", str(film), "--lang", "tlh"]) == 1
    assert "no language 'tlh'" in capsys.readouterr().err
