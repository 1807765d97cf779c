"""What SOURCE may be, and which films it then names."""

import os
import shutil
from pathlib import Path

import pydicom
import pytest

from pneumonet.batch.rows import printable_path
from pneumonet.batch.sources import find_films
from pneumonet.errors import ConfigError

DICOM_DIRECTORIES = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a/2.dcm", "a/1.JPG", "a-b/3.png", ".hidden.png", ".git/4.png", "out.parquet"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "films"


def test_a_folder_is_its_files_at_any_depth_in_the_order_of_their_paths(folder: Path) -> None:
    films = find_films(str(folder), ignored=[folder / "out.parquet"])
    assert list(films.names) == ["a/1.JPG", "a/2.dcm", "a-b/3.png", "b.png"]
    assert films.location("a/2.dcm") == str(folder / "a" / "2.dcm")


def test_results_inside_the_folder_are_no_films(folder: Path) -> None:
    (folder / "out.parquet.parts").mkdir()
    (folder / "out.parquet.parts" / "part-1.parquet").write_bytes(b"")
    names = find_films(str(folder), ignored=[folder / "out.parquet", folder / "out.parquet.parts"]).names
    assert not [name for name in names if "parquet" in name]


@pytest.mark.parametrize("source", ["", "**/*"])
def test_results_are_no_films_by_whatever_road_they_are_reached(folder: Path, tmp_path: Path, source: str) -> None:
    (tmp_path / "archive").symlink_to(folder)
    (folder / "out.parquet.parts").mkdir()
    (folder / "out.parquet.parts" / "part-1.parquet").write_bytes(b"")
    results = [folder / "out.parquet", folder / "out.parquet.parts"]
    for road in (tmp_path / "archive", folder / "a" / ".."):
        names = find_films(os.path.join(road, source), ignored=results).names
        assert len(names) == 4
        assert not [name for name in names if "parquet" in name]


def test_a_link_to_a_folder_is_followed_as_a_pattern_follows_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "5.png").write_bytes(b"")
    (folder / "0-linked").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(folder)
    names = list(find_films(".").names)
    assert names == ["0-linked/deep/5.png", "a/1.JPG", "a/2.dcm", "a-b/3.png", "b.png", "out.parquet"]
    assert set(find_films("**/*").names) == set(names)


def test_links_that_go_round_end_and_each_film_keeps_its_own_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a" / "0-up").symlink_to(folder)
    (folder / "c.png").symlink_to("b.png")
    monkeypatch.chdir(folder)
    once = ["a/1.JPG", "a/2.dcm", "a-b/3.png", "b.png", "c.png", "out.parquet"]
    assert sorted(find_films("**/*").names) == sorted(once)
    # A pattern that meets two such links doubles its paths at each turn and never ends.
    (folder / "0-other").symlink_to(folder / "a")
    assert list(find_films(".").names) == once


def test_a_path_up_from_a_link_is_the_one_that_the_system_takes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b.png").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    (folder / "list.csv").write_text("b.png\nlink/../b.png\n")
    assert list(find_films(str(folder / "list.csv")).names) == ["b.png", "link/../b.png"]


def test_a_pattern_keeps_the_paths_as_it_matches_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    films = find_films("films/**/*.[dJ]*")
    assert list(films.names) == ["films/a/1.JPG", "films/a/2.dcm"]
    assert Path(films.location("films/a/1.JPG")) == folder / "a" / "1.JPG"


def test_a_name_with_a_pattern_s_characters_is_that_folder(folder: Path) -> None:
    shutil.move(folder, folder.with_name("films[1]"))
    assert "b.png" in find_films(str(folder.with_name("films[1]"))).names


@pytest.mark.parametrize(
    "text",
    [
        "path,note\na/1.JPG,x\nb.png,y\na/../b.png,again\n",
        "a/1.JPG\nb.png\n\na/1.JPG\n",
        "note,File\nx,a/1.JPG\ny,b.png\n",
    ],
    ids=["header", "one column", "file"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_names_films_from_its_own_folder_each_once(folder: Path, text: str, encoding: str) -> None:
    listed = folder / "list.CSV"
    listed.write_text(text, encoding=encoding)
    films = find_films(str(listed))
    assert list(films.names) == ["a/1.JPG", "b.png"]
    assert films.location("b.png") == str(folder / "b.png")


def test_a_csv_takes_absolute_paths_and_films_that_are_missing(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"path\n{folder / 'b.png'}\nmissing.png\n")
    films = find_films(str(listed))
    assert [films.location(name) for name in films.names] == [str(folder / "b.png"), str(tmp_path / "missing.png")]


@pytest.mark.parametrize("name", ["DICOMDIR", ""])
def test_a_dicom_directory_names_its_pictures(name: str) -> None:
    films = find_films(str(DICOM_DIRECTORIES / name))
    assert len(films.names) == 31
    assert films.names[0] == "77654033/CR1/6154"
    assert all(Path(films.location(name)).is_file() for name in films.names)


def test_a_single_file_is_a_film(folder: Path) -> None:
    films = find_films(str(folder / "b.png"))
    assert [films.location(name) for name in films.names] == [str(folder / "b.png")]


def test_a_name_that_is_no_unicode_is_found_and_can_be_written(folder: Path) -> None:
    os.close(os.open(os.fsencode(folder) + b"/c\xff.png", os.O_CREAT))
    films = find_films(str(folder))
    name = next(name for name in films.names if name.startswith("c"))
    assert os.path.isfile(films.location(name))
    assert printable_path(name) == "c\\xff.png"
    printable_path(name).encode()


@pytest.mark.parametrize(
    ("source", "content", "words"),
    [
        ("nowhere", None, "no file or folder"),
        ("nowhere/*.png", None, "names no film"),
        ("empty", "", "names no film"),
        ("empty.csv", b"", "names no film"),
        ("two.csv", b"film,site\na.png,x\n", "none is named path"),
        ("latin.csv", "path\nü.png\n".encode("latin-1"), "no CSV in UTF-8"),
    ],
)
def test_what_cannot_be_a_source_is_told_in_words(
    tmp_path: Path, source: str, content: bytes | str | None, words: str
) -> None:
    if content == "":
        (tmp_path / source).mkdir()
    elif isinstance(content, bytes):
        (tmp_path / source).write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        find_films(str(tmp_path / source))
