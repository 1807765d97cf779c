"""The command on this machine: real processes, killed and killing."""

import hashlib
import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from pneumonet import __version__
from pneumonet.batch.job import Job
from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import Parts, folder_of
from pneumonet.batch.run import Batch, run_batch
from pneumonet.batch.schema import table_of
from pneumonet.batch.sources import Films
from pneumonet.batch.worker import answer
from pneumonet.cli import main
from pneumonet.errors import ConfigError
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings
from tests.batch.conftest import BAD_FILMS, HANG, Run, film, harm, rows_of, until, write_films

Start = Callable[..., "subprocess.Popen[str]"]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, told = process.communicate(timeout=120)
    return process.returncode, out, told


def test_every_film_has_its_row_whatever_it_does(answered_here: Run, tiny_model: PneumoNet) -> None:
    folder, printed, told = answered_here.folder, answered_here.printed, answered_here.told
    rows = {row["path"]: row for row in rows_of(answered_here.out)}
    good = [f"film-{seed:02}.jpg" for seed in range(6)]
    assert list(rows) == sorted([*BAD_FILMS, *good])
    assert {name: rows[name]["error_code"] for name in BAD_FILMS} == {
        name: code for name, (code, _) in BAD_FILMS.items()
    }
    for name in good:
        answer = tiny_model.predict(folder / name, saliency=False).to_dict()
        assert rows[name]["p_normal"] == pytest.approx(answer["probabilities"]["NORMAL"], abs=2e-6)
        assert rows[name]["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (answered_here.out.parent / "ended-once").exists()
    assert "17 films: 8 answered, 1 refused" in printed
    assert "worker_died 1" in printed
    assert "A film may have 10 MB; to change that, set PNEUMONET_MAX_UPLOAD_MB." in printed
    assert "Not a medical device" in printed
    # The log has the traceback of what nobody foresaw, and of nothing else.
    assert told.count("Traceback") == told.count("RuntimeError: nobody foresaw this") == 1
    assert "film-0" not in told


def test_films_that_failed_for_no_fault_of_theirs_are_an_exit_code_and_are_kept_to_be_tried_again(
    answered_here: Run,
) -> None:
    assert answered_here.code == 1
    assert "3 films failed for no fault of theirs: the same command tries them once more." in answered_here.printed
    assert list(folder_of(answered_here.out).glob("part-*"))


def test_metadata_tells_what_answered(answered_here: Run, tiny_model: PneumoNet) -> None:
    told = json.loads(pq.read_schema(answered_here.out).metadata[b"pneumonet"])
    engine = tiny_model.ensemble.engine
    assert told["pneumonet"] == __version__
    assert told["model"]["revision"] == tiny_model.info.revision
    assert told["engines"] == [f"{engine.name}, {engine.precision}, cpu"]
    # A film that ends its process leaves nobody to say what that ran in.
    assert [row["path"] for row in rows_of(answered_here.out) if row["engine"] is None] == ["ends-its-process.jpg"]


def test_a_batch_and_a_worker_killed_in_the_middle_cost_no_film(start: Start, tmp_path: Path) -> None:
    folder, out = write_films(tmp_path / "films", 8, {"z": BAD_FILMS["z-held.jpg"]}), tmp_path / "out.parquet"
    parts = folder_of(out)
    first = start(folder, "--out", out, "--workers", 1)
    until(first, lambda: list(parts.glob("part-*")))
    children = psutil.Process(first.pid).children(recursive=True)
    assert children
    first.kill()
    first.communicate()
    (tmp_path / "released").touch()
    _, gone_on = psutil.wait_procs(children, timeout=20)
    assert not gone_on, "a worker outlives the batch"
    answered = sum(len(rows_of(part)) for part in parts.glob("part-*"))
    assert 0 < answered < 9
    assert not out.exists()

    (tmp_path / "released").unlink()
    second = start(folder, "--out", out, "--workers", 1)
    family = psutil.Process(second.pid)
    until(second, lambda: sum(len(rows_of(part)) for part in parts.glob("part-*")) == 8 and family.children())
    family.children()[0].send_signal(signal.SIGKILL)
    (tmp_path / "released").touch()
    code, printed, told = ended(second)
    assert code == 0, told
    assert f"{answered} of 9 films are answered already" in told
    assert [row["path"] for row in rows_of(out)] == sorted(path.name for path in folder.iterdir())
    assert {row["error_code"] for row in rows_of(out)} == {None}
    assert "9 films: 9 answered" in printed
    assert not parts.exists()


def test_ctrl_c_keeps_what_is_answered_and_says_so(start: Start, tmp_path: Path) -> None:
    folder, out = write_films(tmp_path / "films", 4, {"z": BAD_FILMS["z-held.jpg"]}), tmp_path / "out.parquet"
    process = start(folder, "--out", out, "--workers", 1)
    until(process, lambda: list(folder_of(out).glob("part-*")))
    process.send_signal(signal.SIGINT)
    code, _, told = ended(process)
    assert (code, told.splitlines()[-1]) == (1, "Stopped. The same command goes on from here.")
    assert "Traceback" not in told
    assert list(folder_of(out).glob("part-*"))


@pytest.fixture
def settings(tiny_snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PNEUMONET_MODEL", str(tiny_snapshot))
    monkeypatch.setenv("PNEUMONET_DEVICE", "cpu")
    return Settings.from_environment()


def test_a_share_that_is_away_stops_the_batch_and_costs_no_film(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, out = tmp_path / "list.csv", tmp_path / "out.parquet"
    listed.write_text("".join(f"films/film-{seed:02}.jpg\n" for seed in range(6)))
    asked = ["batch", str(listed), "--out", str(out), "--workers", "1"]
    assert main([*asked, "--stop-after", "4"]) == 1
    told = capsys.readouterr()
    assert "film after film failed for no fault of its own (file_unavailable 4), and 2 of 6 have no row yet" in told.err
    assert "the same command goes on from here" in told.err
    assert (told.out, out.exists()) == ("", False)
    write_films(tmp_path / "films", 6, {})
    assert main([*asked, "--stop-after", "4"]) == 0
    assert "answered already" not in capsys.readouterr().err
    assert [row["error_code"] for row in rows_of(out)] == [None] * 6
    assert not folder_of(out).exists()


def test_films_that_fail_again_do_not_stand_before_those_that_had_no_turn(settings: Settings, tmp_path: Path) -> None:
    write_films(tmp_path / "films", 2, {})
    listed, out = tmp_path / "list.csv", tmp_path / "out.parquet"
    names = [*(f"away/{number}.png" for number in range(3)), "films/film-00.jpg", "films/film-01.jpg"]
    listed.write_text("\n".join(names))
    asked = ["batch", str(listed), "--out", str(out), "--workers", "1", "--stop-after", "3"]
    assert main(asked) == 1
    assert not out.exists()
    assert main(asked) == 1
    assert [row["error_code"] for row in rows_of(out)] == [*["file_unavailable"] * 3, None, None]


def test_a_list_of_films_that_are_no_longer_there_is_answered_to_its_end(settings: Settings, tmp_path: Path) -> None:
    write_films(tmp_path / "films", 1, {})
    listed, out = tmp_path / "list.csv", tmp_path / "out.parquet"
    listed.write_text("".join(f"films/film-{seed:02}.jpg\n" for seed in range(6)))
    assert main(["batch", str(listed), "--out", str(out), "--workers", "1", "--stop-after", "4"]) == 0
    assert [row["error_code"] for row in rows_of(out)] == [None, *["unreadable_image"] * 5]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, tiny_model: PneumoNet) -> list[list[str]]:
    """The films of each run that answers some; they are answered in this process."""
    runs: list[list[str]] = []

    def answer_in_this_process(films: Films, waiting: Sequence[str], job: Job, parts: Parts, *_: object) -> None:
        runs.append(list(waiting))
        parts.write(table_of([answer(tiny_model, name, films.location(name), force=job.force) for name in waiting]))

    monkeypatch.setattr("pneumonet.batch.local.answer_here", answer_in_this_process)
    return runs


def test_rows_of_other_options_are_told_of_and_stay(
    settings: Settings,
    answered: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ["a.jpg", "b.jpg"]
    folder = write_films(tmp_path / "films", 0, {name: (None, partial(film, seed)) for seed, name in enumerate(names)})
    (folder / "c.jpg").symlink_to("away/nothing")
    asked = ["batch", str(folder), "--out", str(tmp_path / "out.parquet")]
    assert main(asked) == 1
    kept = {part: part.read_bytes() for part in folder_of(tmp_path / "out.parquet").glob("part-*")}
    monkeypatch.setenv("PNEUMONET_MAX_MEGAPIXELS", "12")
    capsys.readouterr()
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "3 rows of a run with other options, or of another PneumoNet, are not taken." in told
    assert "--anew" in told
    assert {part: part.read_bytes() for part in kept} == kept
    assert main([*asked, "--anew"]) == 1
    assert "the same command without --anew tries them" in capsys.readouterr().out
    assert not [part for part in kept if part.exists()]
    (folder / "c.jpg").unlink()
    (folder / "c.jpg").write_bytes(film(9))
    assert main(asked) == 0
    assert answered == [[*names, "c.jpg"], [*names, "c.jpg"], ["c.jpg"]]


def test_to_force_an_answer_only_refused_films_are_answered_again(
    settings: Settings, answered: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_films(tmp_path / "films", 1, {name: BAD_FILMS[name] for name in ("blank.png", "gone.png")})
    asked = ["batch", str(folder), "--out", str(tmp_path / "out.parquet")]
    for more in ([], ["--force"], []):
        assert main([*asked, *more]) == 1
    assert "1 of 3 films are answered already" in capsys.readouterr().err
    assert answered == [["blank.png", "film-00.jpg", "gone.png"], ["blank.png", "gone.png"], ["gone.png"]]
    assert [row["error_code"] for row in rows_of(tmp_path / "out.parquet")] == [
        "not_admitted",
        None,
        "file_unavailable",
    ]
    assert main([*asked, "--force"]) == 1
    assert [row["error_code"] for row in rows_of(tmp_path / "out.parquet")] == [None, None, "file_unavailable"]
    assert answered[3:] == [["gone.png"]]


@pytest.mark.parametrize("road", ["films", "films/../films", "link"])
def test_results_in_the_source_are_no_films_of_it(
    settings: Settings, answered: list[list[str]], tmp_path: Path, road: str
) -> None:
    folder = write_films(tmp_path / "films", 1, {"blank.png": BAD_FILMS["blank.png"]})
    (tmp_path / "link").symlink_to(folder)
    out = tmp_path / road / "out.parquet"
    for _ in range(2):
        run_batch(Batch(str(folder), out), settings)
        assert [row["path"] for row in rows_of(out)] == ["blank.png", "film-00.jpg"]
    assert answered == [["blank.png", "film-00.jpg"]] * 2
    with pytest.raises(ConfigError, match="place of the source"):
        run_batch(Batch(str(folder / "out.parquet"), out), settings)


def test_a_film_that_hangs_is_given_up_after_a_second_try(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(harm(tmp_path)))
    folder, out = write_films(tmp_path / "films", 1, {}), tmp_path / "out.parquet"
    (folder / "a-hangs.jpg").write_bytes(film(5, HANG))
    told, to_retry = run_batch(Batch(str(folder), out, workers=1, film_seconds=3), settings)
    assert "2 films: 1 answered, 0 refused by admission, 1 without an answer (took_too_long 1)" in told
    assert to_retry == 1
    assert rows_of(out)[0]["error"] == "The film was not answered within 3 seconds."


def test_a_second_run_at_one_output_is_refused(
    settings: Settings, answered: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        (("films", "--out", "out.parquet", "--stop-after", "-1"), "at least 0"),
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
