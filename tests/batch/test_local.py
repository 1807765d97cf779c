"""The command on this machine: real processes, killed and killing."""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pneumonet.batch.job import Job
from pneumonet.batch.pool import WorkerPool
from pneumonet.cli import main
from pneumonet.errors import ModelUnavailableError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.batch.conftest import BAD_FILMS, rows_of, write_films

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


def test_other_options_do_not_take_the_rows_of_these(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    names = {"blank.png": BAD_FILMS["blank.png"]}
    folder, out = write_films(tmp_path / "films", 1, names), tmp_path / "films" / "out.parquet"
    assert main(["batch", str(folder), "--out", str(out)]) == 0
    assert [row["error_code"] for row in rows_of(out)] == ["not_admitted", None]
    assert main(["batch", str(folder), "--out", str(out), "--force"]) == 0
    # The results lie in the source and are no film of it.
    assert [(row["path"], row["error_code"]) for row in rows_of(out)] == [("blank.png", None), ("film-00.jpg", None)]
    assert "answered already" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "--out", "out.parquet"), "no file or folder"),
        (("films", "--out", "films/film-00.jpg"), "no Parquet file"),
        (("films/film-00.jpg", "--out", "films/film-00.jpg"), "place of the source"),
        (("films", "--out", "out.parquet", "--workers", "0"), "at least 1"),
        (("films", "--out", "out.parquet", "--labels", "folders"), "has a label"),
        (("films", "--out", "out.parquet", "--labels", "nowhere.csv"), "no file of labels"),
        (("films", "--out", "out.parquet", "--ray", "127.0.0.1:9"), "No Ray cluster answers"),
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


def _job(snapshot: Path, **environment: str) -> Job:
    return Job({"PNEUMONET_MODEL": str(snapshot)} | environment, "local-1", False, 1)


def test_a_model_that_cannot_be_loaded_is_told_as_the_worker_tells_it(tiny_snapshot: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="no snapshot folder"), WorkerPool(_job(tiny_snapshot / "none"), 1):
        pass


def test_workers_that_die_while_they_load_are_given_up(
    tiny_snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match="exit code -9") as raised, WorkerPool(_job(tiny_snapshot), 2):
        pass
    assert "--workers" in raised.value.hint


def test_a_job_names_no_secret(tiny_model: PneumoNet) -> None:
    settings = Settings.from_environment(
        {"PNEUMONET_AUTH": "reader:s3cret", "PNEUMONET_REDIS_URL": "redis://:s3cret@cache"}
    )
    job = Job.of(settings, tiny_model.snapshot, force=False, threads=1)
    assert "s3cret" not in json.dumps(dict(job.environment)) + repr(job)
    assert job.fingerprint("a") != job.fingerprint("b")
    assert job.fingerprint("a") == job.fingerprint(os.path.join("b", "..", "a"))
    assert job.fingerprint("a") != Job.of(settings, tiny_model.snapshot, force=True, threads=1).fingerprint("a")
    assert job.fingerprint("a") == Job.of(settings, tiny_model.snapshot, force=False, threads=8).fingerprint("a")
