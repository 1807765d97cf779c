"""Open a snapshot: a local folder, or a model repo pulled from the Hub into its cache, verified either way.

A branch or tag is noted in the cache only after the whole commit has been verified, so that a start without network
never meets half a snapshot. Files are fetched one by one, by name: `snapshot_download` lists the repo first, without
a time-out (huggingface_hub 2.4.0), and falls back to the cache without telling.
"""

import logging
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from huggingface_hub.errors import RemoteEntryNotFoundError

from pneumonet.errors import ConfigError, DownloadError, PneumoNetError, SnapshotError
from pneumonet.hub.failures import FAILURES, Cause, explain
from pneumonet.hub.repo import Repo, checked_repo_id
from pneumonet.snapshot import CARD_FILE, CONFIG_FILE, METRICS_FILE, SnapshotConfig, verify_files

# Nothing that can hold a pickle; no characters that could make a name a pattern or leave the folder.
LOADABLE_SUFFIXES: Final = (".safetensors", ".json", ".md")
_FILE_NAME: Final = re.compile(r"[\w.+-]+(/[\w.+-]+)*", re.ASCII)
_REVISION: Final = re.compile(r"(?!.*(\.\.|//))[\w.+-][\w./+-]*", re.ASCII)

_MODEL_HINT: Final = "Point PNEUMONET_MODEL at a folder that holds a config.json, or at org/name on the Hub."
_SHOWN_CHARACTERS: Final = 200

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
    """

    path: Path
    config: SnapshotConfig
    repo_id: str | None
    revision: str
    warnings: tuple[str, ...] = ()


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
    verify_files(folder, config)
    return Snapshot(folder, config, None, own_revision)


def pull(
    repo_id: str, revision: str | None = None, *, cache_dir: Path | None = None, token: str | None = None
) -> Snapshot:
    """Pull a snapshot from the Hub, or open it from the cache where the Hub cannot be used.

    Args:
        repo_id: `org/name`.
        revision: Branch, tag or commit; a full commit id that is cached asks the Hub nothing.
        cache_dir: Cache of pulled repos, None for huggingface_hub's own (HF_HOME).
        token: Token for a private or gated repo, None for HF_TOKEN or the saved one.

    Raises:
        ConfigError: If `repo_id` or `revision` cannot mean anything.
        SnapshotError: If the repo's files are missing or damaged, even after a second download.
        DownloadError: If the Hub, the repo or the revision is out of reach and nothing usable is cached.
    """
    repo = Repo(checked_repo_id(repo_id), _checked_revision(revision), cache_dir, token)
    if repo.is_pinned:
        with suppress(SnapshotError):
            if snapshot := _open_cached(repo):
                _log.info("Opened %s from the cache.", repo.label)
                return snapshot
    try:
        return _pull_commit(repo, repo.resolve())
    except PneumoNetError:
        raise
    except RemoteEntryNotFoundError as error:
        raise SnapshotError(
            f"{repo.label} is no whole PneumoNet snapshot: it lacks {_missing_file(error, repo_id)}."
        ) from error
    except FAILURES as error:
        return _open_cached_instead(repo, explain(error, repo_id), error)


def _open_cached(repo: Repo) -> Snapshot | None:
    folder = repo.cached_snapshot()
    if folder is None:
        return None
    config = read_config(folder)
    verify_files(folder, config)
    return Snapshot(folder, config, repo.repo_id, folder.name)


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
    repo.remember(commit)
    for name in (CARD_FILE, METRICS_FILE):
        _fetch_if_possible(repo, commit, name)
    _log.info("%s is complete and verified.", repo.label)
    return Snapshot(folder, config, repo.repo_id, commit)


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
                f"{repo.label}: {name} is damaged even after a second download; it is not used.",
                hint="Pin PNEUMONET_REVISION to an earlier commit, and tell the owner of the repo.",
            ) from error


def _fetch_if_possible(repo: Repo, commit: str, name: str) -> None:
    try:
        repo.fetch(name, commit)
    except RemoteEntryNotFoundError:
        _log.info("%s has no %s.", repo.label, name)
    except FAILURES as error:
        _log.warning("%s of %s was not pulled: %s.", name, repo.label, explain(error, repo.repo_id).reason)


def _open_cached_instead(repo: Repo, cause: Cause, error: BaseException) -> Snapshot:
    trouble = f"The model {repo.label} cannot be pulled: {cause.reason}."
    try:
        snapshot = _open_cached(repo)
    except SnapshotError as damage:
        trouble = f"{trouble} The cached copy cannot be used either: {damage.message}"
        raise DownloadError(trouble, repo_id=repo.repo_id, revision=repo.revision, hint=cause.hint) from error
    if snapshot is None:
        hint = f"{cause.hint} {_cache_hint(repo)}"
        raise DownloadError(trouble, repo_id=repo.repo_id, revision=repo.revision, hint=hint) from error
    warning = f"{trouble} The cached commit {snapshot.revision} is used instead."
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


def _checked_revision(revision: str | None) -> str | None:
    # It becomes the name of a file in the cache.
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ConfigError(f"Expected a branch, a tag or a commit id as revision, got {revision!r}.")
    return revision


def _missing_file(error: RemoteEntryNotFoundError, repo_id: str) -> str:
    path = error.response.url.path
    return path.split("/resolve/", 1)[-1].split("/", 1)[-1] if f"/{repo_id}/resolve/" in path else "a file"
