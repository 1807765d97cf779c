"""Parts on disk: what a kill leaves, and how they become one file."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pneumonet.batch import parts as parts_module
from pneumonet.batch.lock import only_run
from pneumonet.batch.parts import Parts, PartWriter, rows_a_part
from pneumonet.batch.rows import failed
from pneumonet.batch.schema import SCHEMA, table_of
from pneumonet.errors import ConfigError, EmptyFileError, InternalError
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


def test_parts_of_another_job_are_not_taken(parts: Parts) -> None:
    Parts(parts.out, "another job", {}).write(table_of([row("a")]))
    assert parts.answered("ab") == set()
    parts.write(table_of([row("b")]))
    assert parts.answered("ab") == {"b"}
    with pytest.raises(InternalError, match="1 films have no row"):
        parts.merge("ab")
    assert not parts.out.exists()
    assert parts.answered("ab") == {"b"}


def test_what_a_kill_left_half_written_is_cleared_and_damage_passed_over(parts: Parts) -> None:
    parts.write(table_of([row("a")]))
    whole = next(parts.folder.glob("part-*"))
    (parts.folder / ".partial-part-1-1.parquet").write_bytes(whole.read_bytes()[:100])
    (parts.folder / f"part-{'0' * 32}-1.parquet").write_bytes(whole.read_bytes()[:100])
    parts.open()
    assert not list(parts.folder.glob(".partial*"))
    assert parts.answered("a") == {"a"}


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
            assert parts.answered("abc") == {"a", "b"}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert parts.answered("abc") == set("abc")


def test_slow_films_do_not_wait_for_a_full_part(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_MOST_SECONDS", 0.0)
    with PartWriter(parts, 64) as writer:
        writer.add(row("a"))
        assert parts.answered("a") == {"a"}


def test_a_part_is_never_without_rows() -> None:
    assert all(rows_a_part(films, workers) >= 1 for films in (1, 7, 10**6) for workers in (1, 64))
