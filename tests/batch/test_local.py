"""The command on this machine: real processes, killed and killing."""

import hashlib
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import Parts
from pneumonet.batch.run import Batch, run_batch
from pneumonet.cli import main
from pneumonet.errors import ConfigError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.batch.conftest import BAD_FILMS, HANG, film, harm, rows_of, write_films

Start = Callable[..., "subprocess.Popen[str]"]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, told = process.communicate(timeout=120)
    return process.returncode, out, told


def test_every_film_has_its_row_whatever_it_does(start: Start, tmp_path: Path, tiny_model: PneumoNet) -> None:
    folder, out = write_films(tmp_path / "films", 6, BAD_FILMS), tmp_path / "out.parquet"
    code, printed, told = ended(start(folder, "--out", out, "--workers", 2))
    assert code == 0, told
    rows = {row["path"]: row for row in rows_of(out)}
    good = [f"film-{seed:02}.jpg" for seed in range(6)]
    assert list(rows) == sorted([*BAD_FILMS, *good])
    assert {name: rows[name]["error_code"] for name in BAD_FILMS} == {
        name: code for name, (code, _) in BAD_FILMS.items()
    }
    for name in good:
        answer = tiny_model.predict(folder / name, saliency=False).to_dict()
        assert rows[name]["p_normal"] == pytest.approx(answer["probabilities"]["NORMAL"], abs=2e-6)
        assert rows[name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (tmp_path / "ended-once").exists()
    assert "15 films: 7 answered, 1 refused" in printed
    assert "worker_died 1" in printed
    assert "A film may have 10 MB; to change that, set PNEUMONET_MAX_UPLOAD_MB." in printed
    assert "Not a medical device" in printed
    assert not list(tmp_path.glob("out.parquet.parts"))
    # The log has the traceback of what nobody foresaw, and of nothing else.
    assert told.count("Traceback") == told.count("RuntimeError: nobody foresaw this") == 1
    assert "film-0" not in told


def test_a_batch_killed_in_the_middle_goes_on_where_it_was(start: Start, tmp_path: Path) -> None:
    folder, out = write_films(tmp_path / "films", 40, {}), tmp_path / "out.parquet"
    parts = tmp_path / "out.parquet.parts"
    first = start(folder, "--out", out, "--workers", 1, seconds_a_film="0.02")
    children = _killed_after_its_first_part(first, parts)
    _, gone_on = psutil.wait_procs(children, timeout=20)
    assert not gone_on, "a worker outlives the batch"
    kept = {path.name: path.read_bytes() for path in parts.glob("part-*")}
    answered = sum(len(rows_of(parts / name)) for name in kept)
    assert 0 < answered < 40
    assert not out.exists()
    code, printed, told = ended(start(folder, "--out", out, "--workers", 1))
    assert code == 0, told
    assert f"{answered} of 40 films are answered already" in told
    assert [row["path"] for row in rows_of(out)] == sorted(path.name for path in folder.iterdir())
    assert {row["error_code"] for row in rows_of(out)} == {None}
    assert "40 films: 40 answered" in printed
    assert not parts.exists()


def _killed_after_its_first_part(process: "subprocess.Popen[str]", parts: Path) -> list[psutil.Process]:
    until = time.monotonic() + 60
    while not list(parts.glob("part-*")):
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    children: list[psutil.Process] = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate()
    return children


def test_a_worker_killed_in_the_middle_costs_no_film(start: Start, tmp_path: Path) -> None:
    folder, out = write_films(tmp_path / "films", 30, {}), tmp_path / "out.parquet"
    process = start(folder, "--out", out, "--workers", 1, seconds_a_film="0.02")
    while not list((tmp_path / "out.parquet.parts").glob("part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    worker = psutil.Process(process.pid).children()[0]
    worker.send_signal(signal.SIGKILL)
    code, _, told = ended(process)
    assert code == 0, told
    assert [row["error_code"] for row in rows_of(out)] == [None] * 30


def test_ctrl_c_keeps_what_is_answered_and_says_so(start: Start, tmp_path: Path) -> None:
    folder, out = write_films(tmp_path / "films", 40, {}), tmp_path / "out.parquet"
    process = start(folder, "--out", out, "--workers", 1, seconds_a_film="0.02")
    parts = tmp_path / "out.parquet.parts"
    while not list(parts.glob("part-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    code, _, told = ended(process)
    assert (code, told.splitlines()[-1]) == (1, "Stopped. The same command goes on from here.")
    assert "Traceback" not in told
    assert list(parts.glob("part-*"))


@pytest.fixture
def settings(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    return Settings.from_environment()


def test_other_options_do_not_take_the_rows_of_these(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    folder = write_films(tmp_path / "films", 1, {"blank.png": BAD_FILMS["blank.png"]})
    asked = ["batch", str(folder), "--out", str(tmp_path / "out.parquet")]
    with monkeypatch.context() as patched:
        patched.setattr(Parts, "merge", stop)
        assert main(asked) == 1
        assert list((tmp_path / "out.parquet.parts").glob("part-*"))
        assert main(asked) == 1
    assert "2 of 2 films are answered already" in capsys.readouterr().err
    assert main([*asked, "--force"]) == 0
    assert "answered already" not in capsys.readouterr().err
    assert [row["error_code"] for row in rows_of(tmp_path / "out.parquet")] == [None, None]


@pytest.mark.parametrize("road", ["films", "films/../films", "link"])
def test_results_in_the_source_are_no_films_of_it(settings: Settings, tmp_path: Path, road: str) -> None:
    folder = write_films(tmp_path / "films", 1, {"blank.png": BAD_FILMS["blank.png"]})
    (tmp_path / "link").symlink_to(folder)
    out = tmp_path / road / "out.parquet"
    for _ in range(2):
        run_batch(Batch(str(folder), out), settings)
        assert [row["path"] for row in rows_of(out)] == ["blank.png", "film-00.jpg"]
    with pytest.raises(ConfigError, match="place of the source"):
        run_batch(Batch(str(folder / "out.parquet"), out), settings)


def test_a_film_that_hangs_is_given_up_after_a_second_try(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(harm(tmp_path)))
    folder, out = write_films(tmp_path / "films", 3, {}), tmp_path / "out.parquet"
    (folder / "a-hangs.jpg").write_bytes(film(5, HANG))
    told = run_batch(Batch(str(folder), out, workers=1, film_seconds=3), settings)
    assert "4 films: 3 answered, 0 refused by admission, 1 without an answer (took_too_long 1)" in told
    assert rows_of(out)[0]["error"] == "The film was not answered within 3 seconds."


def test_a_second_run_at_one_output_is_refused(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = write_films(tmp_path / "films", 1, {}), tmp_path / "out.parquet"
    asked = ["batch", str(folder), "--out", str(tmp_path / "films" / ".." / "out.parquet")]
    with only_run(out):
        assert main(asked) == 2
    assert "Another run is writing out.parquet" in capsys.readouterr().err
    assert main(asked) == 0
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.mark.parametrize("seconds", [0, 86_401])
def test_a_time_for_a_film_that_makes_no_sense_is_refused(settings: Settings, tmp_path: Path, seconds: int) -> None:
    with pytest.raises(ConfigError, match="Expected --film-seconds from 1 to 86400"):
        run_batch(Batch(str(tmp_path), tmp_path / "out.parquet", film_seconds=seconds), settings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--out", "out.parquet"), "no file or folder"),
        (("films", "--out", "films/film-00.jpg"), "no Parquet file"),
        (("films/film-00.jpg", "--out", "films/film-00.jpg"), "place of the source"),
        (("films/film-00.jpg", "--out", "films/../films/film-00.jpg"), "place of the source"),
        (("films", "--out", "out.parquet", "--workers", "0"), "at least 1"),
        (("films", "--out", "out.parquet", "--labels", "folders"), "has a label"),
        (("films", "--out", "out.parquet", "--labels", "nowhere.csv"), "no file of labels"),
        (("films", "--out", "out.parquet", "--ray", "127.0.0.1:9"), "No Ray cluster answers"),
        (("films", "--out", "out.parquet", "--ray", "ray://127.0.0.1:10001"), "no address with a scheme"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_code_two(
    tiny_snapshot: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    film = write_films(tmp_path / "films", 2, {}) / "film-00.jpg"
    before = film.read_bytes()
    assert main(["batch", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert len(told.strip().splitlines()) == 1
    assert film.read_bytes() == before


@pytest.mark.parametrize("package", ["pyarrow", "tqdm", "ray"])
def test_a_package_that_is_missing_is_named_with_what_to_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    assert main(["batch", "films", "--out", "out.parquet", "--ray"]) == 2
    told = capsys.readouterr().err
    assert package in told
    assert "pip install -r requirements-batch.txt" in told
