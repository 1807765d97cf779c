"""Parts on disk: what a kill leaves, and how they become one file."""

import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pneumonet.batch import parts as parts_module
from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import Parts, PartWriter, rows_a_part
from pneumonet.batch.rows import failed, printable_path
from pneumonet.batch.schema import SCHEMA, table_of
from pneumonet.errors import ConfigError, EmptyFileError, InternalError, WorkerDiedError
from tests.batch.conftest import rows_of


def row(path: str, sha256: str | None = None) -> dict[str, Any]:
    return failed(path, sha256, "local-1", EmptyFileError("The file is empty."))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    made = Parts(tmp_path / "out.parquet", "a job", {"force": False})
    made.folder.mkdir()
    made.open()
    return made


@pytest.mark.parametrize("window", [1, 3, 50_000])
def test_rows_come_out_in_the_order_of_the_source_each_once(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(parts_module, "_WINDOW", window)
    for paths in ("fb", "c", "ad", "be"):
        parts.write(table_of([row(path) for path in paths]))
    assert parts.rows() == 7
    assert parts.merge("abcdef") == {"empty_file": 6}
    assert [r["path"] for r in rows_of(parts.out)] == list("abcdef")
    assert pq.read_schema(parts.out).equals(SCHEMA)
    assert not list(parts.folder.iterdir())


def test_parts_of_another_job_are_told_of_and_outlive_this_one(parts: Parts) -> None:
    other = Parts(parts.out, "another job", {})
    other.write(table_of([row("a")]))
    [theirs] = parts.folder.glob("part-*")
    with pytest.raises(ConfigError, match="1 rows of a run with other options"):
        parts.open()
    parts.write(table_of([row("b")]))
    assert parts.standing("ab").settled == {"b"}
    with pytest.raises(InternalError, match="1 films have no row"):
        parts.merge("ab")
    assert not parts.out.exists()
    parts.merge("b")
    assert list(parts.folder.glob("part-*")) == [theirs]
    parts.open(anew=True)
    assert not list(parts.folder.glob("part-*"))


def test_what_a_kill_left_half_written_is_cleared_and_damage_passed_over(parts: Parts) -> None:
    parts.write(table_of([row("a")]))
    whole = next(parts.folder.glob("part-*"))
    (parts.folder / ".partial-part-1-1.parquet").write_bytes(whole.read_bytes()[:100])
    (parts.folder / f"part-{'0' * 32}-1.parquet").write_bytes(whole.read_bytes()[:100])
    parts.open()
    assert not list(parts.folder.glob(".partial*"))
    assert parts.standing("a").settled == {"a"}


@pytest.mark.parametrize("column", ["path", "error"])
def test_a_part_whose_end_is_whole_and_whose_pages_are_damaged_is_dropped(parts: Parts, column: str) -> None:
    parts.write(table_of([row("a"), row("b")]))
    [part] = parts.folder.glob("part-*")
    with pq.ParquetFile(part) as file:
        chunks = [file.metadata.row_group(0).column(i) for i in range(file.metadata.num_columns)]
        at = next(c for c in chunks if c.path_in_schema == column).data_page_offset
    data = bytearray(part.read_bytes())
    data[at : at + 24] = bytes(24)
    part.write_bytes(data)
    parts.open()
    assert parts.standing("ab").settled == set()
    parts.write(table_of([row("a"), row("b")]))
    assert parts.merge("ab") == {"empty_file": 2}
    assert not list(parts.folder.iterdir())


def test_a_part_is_on_disk_before_it_has_its_name(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[list[str]] = []
    monkeypatch.setattr("os.fsync", lambda _: synced.append([p.name for p in parts.folder.iterdir()]))
    parts.write(table_of([row("a")]))
    assert [[name.startswith(".partial") for name in names] for names in synced] == [[True]]


def test_of_several_rows_the_film_s_own_is_kept_and_parts_stay_while_one_is_to_be_tried_again(parts: Parts) -> None:
    died = failed("a", None, "local-1", WorkerDiedError("It ended."))
    parts.write(table_of([died, died | {"path": "b"}]))
    assert parts.standing("ab") == (set(), {"a": "worker_died", "b": "worker_died"})
    parts.write(table_of([row("a")]))
    parts.write(table_of([died]))
    assert parts.standing("ab") == ({"a"}, {"b": "worker_died"})
    assert parts.merge("ab") == {"empty_file": 1, "worker_died": 1}
    assert parts.standing("ab") == ({"a"}, {"b": "worker_died"})
    parts.write(table_of([row("b")]))
    assert parts.merge("ab") == {"empty_file": 2}
    assert not list(parts.folder.iterdir())


def test_two_names_whose_escapes_look_alike_have_a_row_each(parts: Parts) -> None:
    names = [os.fsdecode(b"\xff.png"), "\\xff.png"]
    paths = [printable_path(name) for name in names]
    assert paths == ["\\xff.png", "\\\\xff.png"]
    parts.write(table_of([row(path) for path in paths]))
    assert parts.standing(names).settled == set(names)
    parts.merge(names)
    assert [r["path"] for r in rows_of(parts.out)] == paths


def test_a_film_that_left_the_source_has_no_row(parts: Parts) -> None:
    parts.write(table_of([row("gone"), row("a")]))
    parts.merge("a")
    assert [r["path"] for r in rows_of(parts.out)] == ["a"]


def test_somebody_else_s_file_is_neither_overwritten_nor_removed(parts: Parts) -> None:
    for name in ("notes.txt", "part-of-mine.parquet"):
        (parts.folder / name).write_text("mine")
    parts.write(table_of([row("a")]))
    parts.merge("a")
    assert sorted(path.name for path in parts.folder.iterdir()) == ["notes.txt", "part-of-mine.parquet"]
    parts.out.write_text("path,label\n")
    with pytest.raises(ConfigError, match="no Parquet file"):
        parts.open()
    assert parts.out.read_text() == "path,label\n"


def test_a_folder_that_cannot_be_written_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        only_run(tmp_path / "file" / "out.parquet").__enter__()


def test_rows_are_written_as_they_come_and_the_last_at_the_end_whatever_ends_it(parts: Parts) -> None:
    def stopped() -> None:
        with PartWriter(parts, 2) as writer:
            for path in "abc":
                writer.add(row(path))
            assert parts.standing("abc").settled == {"a", "b"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert parts.standing("abc").settled == set("abc")


def test_slow_films_do_not_wait_for_a_full_part(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_MOST_SECONDS", 0.0)
    with PartWriter(parts, 64) as writer:
        writer.add(row("a"))
        assert parts.standing("a").settled == {"a"}


def test_a_part_is_never_without_rows() -> None:
    assert all(rows_a_part(films, workers) >= 1 for films in (1, 7, 10**6) for workers in (1, 64))
