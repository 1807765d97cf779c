"""DICOM directories: pydicom's own, in each encoding, and damaged or hostile ones."""

import io
import shutil
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from pneumonet.errors import ConfigError
from pneumonet.reading import is_dicom_directory, pictures_of

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


def directory(
    *file_ids: list[str] | str, kind: str = "IMAGE", in_use: int = 0xFFFF, syntax: str = ExplicitVRLittleEndian
) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.DirectoryRecordSequence = []
    for file_id in file_ids:
        record = Dataset()
        record.DirectoryRecordType, record.RecordInUseFlag = kind, in_use
        record.ReferencedFileID = file_id
        dataset.DirectoryRecordSequence.append(record)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit", "DICOMDIR-reordered"])
def test_every_encoding_names_the_same_pictures(name: str) -> None:
    pictures = pictures_of(FOLDER / name)
    assert is_dicom_directory(FOLDER / name)
    assert len(set(pictures)) == len(pictures) == 31
    assert all((FOLDER / picture).is_file() for picture in pictures)


def test_only_pictures_in_use_are_named(tmp_path: Path) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(directory(["A", "B"], "C"))
    assert pictures_of(path) == ["A/B", "C"]
    path.write_bytes(directory("A", kind="SR DOCUMENT"))
    assert pictures_of(path) == []
    path.write_bytes(directory("A", in_use=0))
    assert pictures_of(path) == []


def test_a_disc_shown_in_lower_case_is_found(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"")
    (tmp_path / "dicomdir").write_bytes(directory(["A", "B"]))
    assert pictures_of(tmp_path / "dicomdir") == ["a/b"]


@pytest.mark.parametrize("file_id", [["..", "B"], "../B", "/B", ["A", "..\\B"]])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, file_id: list[str] | str) -> None:
    path = tmp_path / "DICOMDIR"
    with pytest.warns(UserWarning, match="Invalid value for VR CS"):
        path.write_bytes(directory(file_id))
    with pytest.raises(ConfigError, match="outside its folder"):
        pictures_of(path)


def test_films_and_texts_are_no_directories(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "77654033" / "CR1" / "6154", tmp_path / "DICOMDIR")
    (tmp_path / "text").write_text("no DICOM")
    assert not is_dicom_directory(tmp_path / "DICOMDIR")
    assert not is_dicom_directory(tmp_path / "text")


@pytest.mark.parametrize("size", [1600, 5800, 8800, 10600])
def test_a_directory_cut_short_is_told_and_loses_no_picture_in_silence(tmp_path: Path, size: int) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes((FOLDER / "DICOMDIR").read_bytes()[:size])
    with pytest.raises(ConfigError, match="cannot be read"):
        pictures_of(path)


def test_a_deflated_one_is_told_and_never_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "DICOMDIR"
    path.write_bytes(directory("A", syntax=DeflatedExplicitVRLittleEndian))
    inflated: list[bytes] = []
    monkeypatch.setattr("pydicom.filereader.zlib.decompress", lambda data, *_: inflated.append(data))
    assert is_dicom_directory(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        pictures_of(path)
    assert inflated == []
