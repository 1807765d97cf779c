"""Open a snapshot: a local folder, or a model repo pulled from the Hub into its cache, verified either way.

A branch or tag is noted in the cache only after the whole commit has been verified, so that a start without network
never meets half a snapshot, and one with network has a commit to go back to where the newest lies. Files are fetched
one by one, by name: `snapshot_download` lists the repo first, without a time-out (huggingface_hub 2.4.0), and falls
back to the cache without telling.
"""

import logging
import re
import stat
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from huggingface_hub.errors import RemoteEntryNotFoundError

from pneumonet.errors import ConfigError, DownloadError, SnapshotError
from pneumonet.hub.failures import FAILURES, Cause, explain, missing_file, missing_in_commit
from pneumonet.hub.opened import Snapshot, read_config, stand_in, verified, verify
from pneumonet.hub.repo import Repo, checked_repo_id
from pneumonet.language import said, sentences
from pneumonet.snapshot import CARD_FILE, CONFIG_FILE, METRICS_FILE, SnapshotConfig, verify_files
from pneumonet.timm_config import check_timm_configs

_REVISION: Final = re.compile(r"(?!.*(\.\.|//))[\w.+-][\w./+-]*", re.ASCII)

_MODEL_HINT: Final = "Point PNEUMONET_MODEL at a folder that holds a config.json, or at org/name on the Hub."
_SHOWN_CHARACTERS: Final = 200

_log = logging.getLogger(__name__)


def open_snapshot(
    model: str | Path, revision: str | None = None, *, cache_dir: Path | None = None, token: str | None = None
) -> Snapshot:
    """Open and verify a snapshot.

    Args:
        model: A folder, or `org/name` on the Hub as text. A folder that exists wins; a Path is always a folder.
        revision: Branch, tag or commit of the repo, None for its default branch.
        cache_dir: Cache of pulled repos, None for huggingface_hub's own (HF_HOME).
        token: Token for a private or gated repo, None for HF_TOKEN or the saved one.

    Raises:
        ConfigError: If `model` or `revision` cannot mean anything.
        SnapshotError: If files are missing or damaged.
        DownloadError: If the Hub, the repo or the revision is out of reach and nothing usable is cached.
    """
    folder = _folder_meant(model)
    if folder is not None:
        return _open_folder(folder, revision)
    return pull(str(model), revision, cache_dir=cache_dir, token=token)


def _folder_meant(model: str | Path) -> Path | None:
    """Return the folder that `model` means, be it there or not; None where it can only be a repo."""
    try:
        path = Path(model).expanduser()
        mode = _mode_of(path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such home folder"
        raise ConfigError(f"{_shown(model)} cannot be opened as a folder: {reason}.", hint=_MODEL_HINT) from error
    if mode and not stat.S_ISDIR(mode):
        raise ConfigError(f"Expected a snapshot folder, got the file {_shown(path)}.", hint=_MODEL_HINT)
    return path if mode or isinstance(model, Path) or _is_written_as_folder(model) else None


def _mode_of(path: Path) -> int:
    """Return the type and permissions of what is there, 0 where nothing is."""
    # Path.is_dir raises for a name that is too long, or hides it: that depends on Python's version.
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return 0


def _is_written_as_folder(model: str) -> bool:
    return model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1


def _shown(model: str | Path) -> str:
    text = str(model)
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}...")


def _open_folder(folder: Path, revision: str | None) -> Snapshot:
    if not folder.is_dir():
        raise SnapshotError(f"There is no snapshot folder {_shown(folder)}.", hint=_MODEL_HINT)
    config = read_config(folder)
    own_revision = f"local-{config.fingerprint}"
    if revision not in (None, own_revision, f"v{config.version}"):
        raise ConfigError(
            f"Revision {revision!r} means nothing for the folder {str(folder)!r}, which is {own_revision}.",
            hint="Unset PNEUMONET_REVISION, or point PNEUMONET_MODEL at org/name on the Hub.",
        )
    verify(folder, config)
    return Snapshot(folder, config, None, own_revision)


def pull(
    repo_id: str, revision: str | None = None, *, cache_dir: Path | None = None, token: str | None = None
) -> Snapshot:
    """Pull a snapshot from the Hub, or open it from the cache where the Hub or its newest commit cannot be used.

    Args:
        repo_id: `org/name`.
        revision: Branch, tag or commit; a full commit id that is cached asks the Hub nothing.
        cache_dir: Cache of pulled repos, None for huggingface_hub's own (HF_HOME).
        token: Token for a private or gated repo, None for HF_TOKEN or the saved one.

    Raises:
        ConfigError: If `repo_id` or `revision` cannot mean anything.
        SnapshotError: If the repo's files are missing, too large, or damaged even after a second download, and the
            revision is a commit or nothing older of it is cached.
        DownloadError: If the Hub, the repo or the revision is out of reach and nothing usable is cached.
    """
    repo = Repo(checked_repo_id(repo_id), _checked_revision(revision), cache_dir, token)
    if repo.is_pinned:
        with suppress(SnapshotError):
            if snapshot := _open_cached(repo):
                _log.info("Opened %s from the cache.", repo.label)
                return snapshot
    commit = ""
    try:
        commit = repo.resolve()
        return _pull_commit(repo, commit)
    except SnapshotError as error:
        if older := stand_in(repo, commit, error):
            return older
        raise
    except RemoteEntryNotFoundError as error:
        lacking = SnapshotError(
            f"{repo.label} is no whole PneumoNet snapshot: it lacks {missing_file(error, repo_id)}."
        )
        if older := stand_in(repo, commit or missing_in_commit(error), lacking):
            return older
        raise lacking from error
    except FAILURES as error:
        return _open_cached_instead(repo, explain(error, repo_id), error)


def _open_cached(repo: Repo) -> Snapshot | None:
    folder = repo.cached_snapshot()
    return verified(folder, repo) if folder is not None else None


def _pull_commit(repo: Repo, commit: str) -> Snapshot:
    _log.info("Pulling %s: commit %s.", repo.label, commit)
    folder = repo.fetch(CONFIG_FILE, commit).parent
    try:
        config = read_config(folder)
    except SnapshotError as error:
        _log.warning("%s Fetching it again.", error.message)
        repo.fetch(CONFIG_FILE, commit, force=True)
        config = read_config(folder)
    for number, (name, digest) in enumerate(config.files.items(), start=1):
        _log.info("File %d of %d: %s, %.1f MB.", number, len(config.files), name, digest.size / 1e6)
        repo.fetch(name, commit)
    for name in config.files:
        _verify_or_fetch_again(repo, commit, folder, config, name)
    check_timm_configs(folder, config)
    repo.remember(commit)
    for name in (CARD_FILE, METRICS_FILE):
        _fetch_if_possible(repo, commit, name)
    _log.info("%s is complete and verified.", repo.label)
    return Snapshot(folder, config, repo.repo_id, commit, repo=repo)


def _verify_or_fetch_again(repo: Repo, commit: str, folder: Path, config: SnapshotConfig, name: str) -> None:
    one_file = replace(config, files={name: config.files[name]})
    try:
        verify_files(folder, one_file)
    except SnapshotError as damage:
        _log.warning("%s Fetching it again.", damage.message)
        repo.fetch(name, commit, force=True)
        try:
            verify_files(folder, one_file)
        except SnapshotError as error:
            raise SnapshotError(
                f"{name} of {repo.label} is damaged even after a second download.",
                hint="Pin PNEUMONET_REVISION to an earlier commit, and tell the owner of the repo.",
            ) from error


def _fetch_if_possible(repo: Repo, commit: str, name: str) -> None:
    try:
        repo.fetch(name, commit)
    except RemoteEntryNotFoundError:
        _log.info("%s has no %s.", repo.label, name)
    except SnapshotError as error:
        _log.warning("%s It is left out.", error.message)
    except FAILURES as error:
        _log.warning("%s of %s was not pulled: %s.", name, repo.label, explain(error, repo.repo_id).reason)


def _open_cached_instead(repo: Repo, cause: Cause, error: BaseException) -> Snapshot:
    trouble = said("The model {repo} cannot be pulled: {reason}.", repo=repo.label, reason=cause.reason)
    try:
        snapshot = _open_cached(repo)
    except SnapshotError as damage:
        told = f"{trouble} The cached copy cannot be used either: {damage.message}"
        raise DownloadError(told, repo_id=repo.repo_id, revision=repo.revision, hint=cause.hint) from error
    if snapshot is None:
        hint = f"{cause.hint} {_cache_hint(repo)}"
        raise DownloadError(trouble, repo_id=repo.repo_id, revision=repo.revision, hint=hint) from error
    used = said("The cached commit {revision} is used instead.", revision=snapshot.revision)
    warning = sentences([trouble, used])
    _log.warning("%s", warning)
    return replace(snapshot, warnings=(warning,))


def _cache_hint(repo: Repo) -> str:
    commits = repo.cached_commits()
    if not commits:
        return f"Nothing of it is cached in {repo.cache_folder}."
    return (
        f"{repo.cache_folder} holds other commits, which only their full 40-character ids can name: "
        f"set PNEUMONET_REVISION to one of {', '.join(commits)}."
    )


def _checked_revision(revision: str | None) -> str | None:
    # It becomes the name of a file in the cache.
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ConfigError(f"Expected a branch, a tag or a commit id as revision, got {revision!r}.")
    return revision
