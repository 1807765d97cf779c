"""DICOMDIR: which files a DICOM directory, on a disc or an export of an archive, says are pictures (PS3.3 Annex F)."""

from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from pneumonet.errors import ConfigError, UnreadableImageError
from pneumonet.reading.limits import translated

_NOT_IN_USE: Final = 0
_OFFSETS: Final = ("OffsetOfTheNextDirectoryRecord", "OffsetOfReferencedLowerLevelDirectoryEntity")


def is_dicom_directory(path: Path) -> bool:
    """Whether a file's content, never its name, is a DICOM directory."""
    try:
        # Not `dcmread`: it inflates a deflated film whole, whatever that comes to.
        meta = read_file_meta_info(path)
    except Exception:  # no parser's error says more than that this is no DICOM
        return False
    return bool(meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)


def pictures_of(path: Path) -> list[str]:
    """Return the files of a DICOM directory's IMAGE records, in its own order, with slashes, below its folder.

    Nothing is opened but the directory: a file that it names may be missing.

    Raises:
        ConfigError: If it cannot be read, or names a file that would lie outside its folder.
    """
    try:
        with translated("The DICOM directory is damaged or incomplete."):
            if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                raise UnreadableImageError("The DICOM directory is deflated, which none may be (PS3.10 8.6).")
            records = list(dcmread(path).get("DirectoryRecordSequence") or ())
            # pydicom takes what is there of a file cut short, and films would be missing without a word.
            if any(int(record.get(name) or 0) >= path.stat().st_size for record in records for name in _OFFSETS):
                raise UnreadableImageError("The DICOM directory is cut short.")
            names = [_parts_of(record) for record in records if _is_picture(record)]
    except UnreadableImageError as error:
        raise ConfigError(
            f"The DICOM directory {path.name} cannot be read.", hint="Name its folder's files."
        ) from error
    for parts in names:
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            raise ConfigError(f"The DICOM directory {path.name} names a file outside its folder.")
    return ["/".join(_as_stored(path.parent, parts)) for parts in names if parts]


def _is_picture(record: Any) -> bool:
    in_use = record.get("RecordInUseFlag", 0xFFFF)
    return in_use != _NOT_IN_USE and str(record.get("DirectoryRecordType", "")).strip() == "IMAGE"


def _parts_of(record: Any) -> list[str]:
    name = record.get("ReferencedFileID")
    parts = [name] if isinstance(name, str) else list(name or ())
    return [str(part) for part in parts]


def _as_stored(folder: Path, parts: list[str]) -> list[str]:
    # File IDs are upper-case, yet many systems show a disc's names in lower case.
    lowered = [part.lower() for part in parts]
    return lowered if not folder.joinpath(*parts).exists() and folder.joinpath(*lowered).exists() else parts
