"""One repo at one revision: what the Hub answers and what the cache holds."""

import hashlib
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from huggingface_hub import (
    CommitOperationAdd,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import FileMetadataError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile

from pneumonet.errors import ConfigError, SnapshotError
from pneumonet.snapshot import CONFIG_FILE

# The Hub's own rule, with the owner required: a bare name is more likely a folder that is not here.
_REPO_ID: Final = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9]([\w.-]*[A-Za-z0-9_])?", re.ASCII)
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_PROGRESS_SECONDS: Final = 5.0
# Far above what a snapshot of ours has, far below what fills a disk: whoever owns a repo decides what lies in it.
_MAX_WEIGHTS_BYTES: Final = 1_000_000_000
# The memory too: a config.json of 16 MB takes 2.3 GB to be refused.
_MAX_OTHER_BYTES: Final = 1_000_000

_log = logging.getLogger(__name__)


def checked_repo_id(repo_id: str) -> str:
    """Return the repo id.

    Raises:
        ConfigError: If it is not `org/name` as the Hub allows it.
    """
    if not _REPO_ID.fullmatch(repo_id) or len(repo_id) > 96 or repo_id.endswith(".git"):
        raise ConfigError(
            f"{repo_id!r} is neither a folder here nor org/name on the Hub.",
            hint="Write a folder as ./name, and a repo with its owner.",
        )
    return repo_id


def max_bytes(name: str) -> int:
    """Return how many bytes a file of a snapshot may have to be pulled."""
    return _MAX_WEIGHTS_BYTES if name.endswith(".safetensors") else _MAX_OTHER_BYTES


def is_same(operation: CommitOperationAdd, there: RepoFile | None) -> bool:
    """Return whether a repo holds a file with the very bytes that would be uploaded."""
    if there is None:
        return False
    with operation.as_file() as file:
        content = file.read()
    if there.lfs is not None:
        return hashlib.sha256(content).hexdigest() == there.lfs.sha256
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == there.blob_id


@dataclass(frozen=True)
class Repo:
    """A repo at the revision asked for, and its place in the cache."""

    repo_id: str
    revision: str | None
    cache_dir: Path | None
    token: str | None = field(repr=False)

    @property
    def label(self) -> str:
        """Repo and revision, as messages name them."""
        return f"{self.repo_id} at {f'revision {self.revision}' if self.revision else 'its default branch'}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit id, which never comes to mean anything else."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None

    @property
    def cache_folder(self) -> Path:
        """The repo's own folder in the cache."""
        cache = self.cache_dir or Path(constants.HF_HUB_CACHE)
        return cache / repo_folder_name(repo_id=self.repo_id, repo_type="model")

    def resolve(self) -> str:
        """Return the commit that the Hub has at the revision; one bounded request that also proves access."""
        url = hf_hub_url(self.repo_id, CONFIG_FILE, revision=self.revision)
        metadata = get_hf_file_metadata(url, token=self.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        commit = metadata.commit_hash or ""
        if not COMMIT.fullmatch(commit) or (self.is_pinned and commit != self.revision):
            raise FileMetadataError(f"The answer for {self.label} has commit {commit!r}.")
        return commit

    def fetch(self, name: str, commit: str, *, force: bool = False) -> Path:
        """Return the cached path of a file, downloaded unless it is there and not forced.

        Raises:
            SnapshotError: If the Hub states more bytes than such a file may have; none of them is fetched.
        """
        if force or not self._has(name, commit):
            self._check_size(name, commit)
        path = hf_hub_download(
            self.repo_id, name, revision=commit, cache_dir=self.cache_dir, token=self.token, force_download=force,
            etag_timeout=constants.HF_HUB_ETAG_TIMEOUT, tqdm_class=_LoggedProgress,
        )  # fmt: skip
        return Path(path)

    def _has(self, name: str, commit: str) -> bool:
        return isinstance(try_to_load_from_cache(self.repo_id, name, self.cache_dir, commit), str)

    def _check_size(self, name: str, commit: str) -> None:
        url = hf_hub_url(self.repo_id, name, revision=commit)
        # As patient as the download that follows: the commit is known to be there.
        size = get_hf_file_metadata(
            url, token=self.token, timeout=constants.HF_HUB_ETAG_TIMEOUT, retry_on_errors=True
        ).size
        if size is None:
            raise FileMetadataError(f"The answer for {name} of {self.label} has no size.")
        if size > (most := max_bytes(name)):
            raise SnapshotError(
                f"{name} of {self.label} has {size / 1e6:.1f} MB; no more than {most / 1e6:.0f} MB are pulled."
            )

    def cached_snapshot(self) -> Path | None:
        """Return the folder of what the cache holds of the revision, whole or not, without a request."""
        path = try_to_load_from_cache(self.repo_id, CONFIG_FILE, cache_dir=self.cache_dir, revision=self.revision)
        return Path(path).parent if isinstance(path, str) else None

    def cached_commits(self) -> list[str]:
        """Return the commits of the repo that the cache holds, under whatever name."""
        return sorted(path.name for path in self.cache_folder.glob("snapshots/*") if COMMIT.fullmatch(path.name))

    def noted_snapshots(self) -> list[Path]:
        """Return the folders of the commits noted for the branch or tag: the last verified, the last that loaded."""
        notes = () if self.is_pinned else (self._verified_note, self._loaded_note)
        folders = [self.cache_folder / "snapshots" / commit for note in notes if (commit := _noted(note))]
        return [folder for folder in folders if folder.is_dir()]

    def remember(self, commit: str) -> None:
        """Note in the cache which commit the branch or tag was, for a start without network; its files are verified.

        What it was before stays noted until this one has loaded: right digests are not yet weights that fit.
        """
        before = _noted(self._verified_note)
        if self.is_pinned or before == commit:
            return
        if before and not _noted(self._loaded_note):
            self._note(self._loaded_note, before)
        self._note(self._verified_note, commit)

    def remember_loaded(self, commit: str) -> None:
        """Note in the cache that a commit of the branch or tag has loaded."""
        if not self.is_pinned and commit != (_noted(self._loaded_note) or _noted(self._verified_note)):
            self._note(self._loaded_note, commit)

    @property
    def _verified_note(self) -> Path:
        return self.cache_folder / "refs" / (self.revision or constants.DEFAULT_REVISION)

    @property
    def _loaded_note(self) -> Path:
        # Beside huggingface_hub's own notes, which it does not look at.
        return self.cache_folder / "pneumonet-loaded" / (self.revision or constants.DEFAULT_REVISION)

    def _note(self, note: Path, commit: str) -> None:
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            fresh = note.with_name(note.name + ".new")
            fresh.write_text(commit)
            fresh.replace(note)
        except OSError as error:
            _log.warning("The cache cannot note the revision of %s (%s).", self.label, error.strerror)


def _noted(note: Path) -> str | None:
    """Return the commit that a note names, None where there is none."""
    try:
        commit = note.read_text()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None


class _LoggedProgress:
    """What huggingface_hub takes for a tqdm bar: now and then a line in the log, nothing on the terminal."""

    # The description that comes along is the end of an address, perhaps of its signature: it is not logged.
    def __init__(self, *_: object, total: int | None = None, initial: int = 0, **__: Any) -> None:
        self.total, self.n = total, initial
        self._next_line = time.monotonic() + _PROGRESS_SECONDS

    def __enter__(self) -> "_LoggedProgress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: float | None = 1) -> None:
        self.n += int(n or 0)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _PROGRESS_SECONDS
            _log.info("%.1f of %.1f MB pulled.", self.n / 1e6, (self.total or 0) / 1e6)

    def update_transfer(self, n: float | None = 1) -> None:
        """Take xet's second count, of bytes on the wire, and leave it."""

    def set_postfix_str(self, postfix: str, refresh: bool = False) -> None:
        """Take the rate, and leave it."""

    set_transfer_postfix_str = set_postfix_str

    def close(self) -> None:
        """Have nothing to close."""
