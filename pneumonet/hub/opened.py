"""A snapshot as it was opened, and the older commit that stands in for one that lies."""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from pneumonet.errors import SnapshotError
from pneumonet.hub.repo import Repo
from pneumonet.language import said
from pneumonet.snapshot import CONFIG_FILE, SnapshotConfig, verify_files
from pneumonet.timm_config import check_timm_configs

# Nothing that can hold a pickle; no characters that could make a name a pattern or leave the folder.
LOADABLE_SUFFIXES: Final = (".safetensors", ".json", ".md")
_FILE_NAME: Final = re.compile(r"[\w.+-]+(/[\w.+-]+)*", re.ASCII)
# A warning goes into every answer, and a stranger's config may have been quoted in it.
_REASON_CHARACTERS: Final = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A folder whose files have been verified against its config.json.

    Attributes:
        path: The folder.
        config: Its config.json.
        repo_id: The Hub repo it came from, None for a local folder.
        revision: The 40-character commit, or `local-` and the config's fingerprint for a local folder.
        warnings: Sentences for whoever uses the model, such as that the Hub was out of reach.
        repo: The repo at the revision asked for, None for a local folder.
    """

    path: Path
    config: SnapshotConfig
    repo_id: str | None
    revision: str
    warnings: tuple[str, ...] = ()
    repo: Repo | None = field(default=None, repr=False, compare=False)

    def accept(self) -> None:
        """Note in the cache that the weights have loaded, so that they can stand in for later ones that do not."""
        if self.repo is not None:
            self.repo.remember_loaded(self.revision)

    def older(self, error: SnapshotError) -> "Snapshot | None":
        """Return the commit to use where this one's weights do not load, with a warning; None where there is none.

        Args:
            error: Why they do not.
        """
        older = stand_in(self.repo, self.revision, error) if self.repo is not None else None
        return older and replace(older, warnings=(*self.warnings, *older.warnings))


def verified(folder: Path, repo: Repo) -> Snapshot:
    """Open the folder that the cache has of a commit of a repo.

    Raises:
        SnapshotError: If it is not whole.
    """
    config = read_config(folder)
    verify(folder, config)
    return Snapshot(folder, config, repo.repo_id, folder.name, repo=repo)


def verify(folder: Path, config: SnapshotConfig) -> None:
    """Check a snapshot's files against its config.json, and what its members say of themselves.

    Raises:
        SnapshotError: If a file is missing, differs or contradicts the config; the message names it.
    """
    verify_files(folder, config)
    check_timm_configs(folder, config)


def stand_in(repo: Repo, commit: str, error: SnapshotError) -> Snapshot | None:
    """Return the whole commit that the cache notes for a branch or tag, with a warning that another is not used.

    Args:
        repo: The repo at the revision asked for; one pinned to a commit has no other.
        commit: The commit that is not used.
        error: Why not.
    """
    for folder in repo.noted_snapshots():
        if folder.name == commit:
            continue
        with suppress(SnapshotError):
            snapshot = verified(folder, repo)
            warning = said(
                "Commit {commit} is not used: {reason}; the verified commit {revision} is used instead.",
                commit=commit,
                reason=error.message[:_REASON_CHARACTERS].rstrip("."),
                revision=snapshot.revision,
            )
            _log.warning("%s", warning)
            return replace(snapshot, warnings=(warning,))
    return None


def read_config(folder: Path) -> SnapshotConfig:
    """Read a snapshot's config.json and check that it names only files of formats that cannot run code.

    Raises:
        SnapshotError: If it is missing, damaged, or names a file that is never loaded.
    """
    config = SnapshotConfig.read(folder)
    for name in config.files:
        if not _FILE_NAME.fullmatch(name) or PurePosixPath(name).suffix not in LOADABLE_SUFFIXES:
            raise SnapshotError(
                f"The snapshot's {CONFIG_FILE} names {name!r}, but only {', '.join(LOADABLE_SUFFIXES)} files are used.",
                hint="Weights must be safetensors: a pickle can run code when it is loaded.",
            )
    return config
