"""Deploy the app as a Space: refuse a tree that is not what is committed, upload in one commit, pin the model."""

import logging
import re
import subprocess
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.hf_api import RepoFile

from pneumonet.errors import ConfigError, DownloadError, PneumoNetError
from pneumonet.hub.failures import FAILURES, explain
from pneumonet.hub.publishing import DISCLAIMER, check_publishable
from pneumonet.hub.repo import COMMIT, checked_repo_id, is_same
from pneumonet.snapshot import CARD_FILE, CONFIG_FILE

_TREE: Final = ("LICENSE", "app.py", "pneumonet", "requirements.txt")
_SNAPSHOT: Final = "model_card"
# What a Space's README says of it beside what is set here.
_NEEDED_KEYS: Final = ("title", "sdk", "sdk_version", "python_version", "app_file", "license")
# Who signs in with Hugging Face stays, whether the clone says so or the Space itself: without it, a Space with
# PNEUMONET_OAUTH_USERS does not start.
_SIGN_IN_KEYS: Final = ("hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes", "hf_oauth_authorized_org")
_KEPT_KEYS: Final = (*_NEEDED_KEYS, "short_description", "tags", *_SIGN_IN_KEYS)
_PIN: Final = re.compile(r"^gradio==(\S+)", re.MULTILINE)
# The Hub's own file, which says what it keeps as LFS.
_THEIRS: Final = ".gitattributes"
_MODEL: Final = "PNEUMONET_MODEL"
_REVISION: Final = "PNEUMONET_REVISION"
# A Space is reached through Hugging Face's proxy alone, which comes from a private address and adds the visitor's to
# X-Forwarded-For: without this all visitors share the proxy's rate. Not "*", which would have uvicorn take the list's
# first address, and that one a visitor may make up; of these networks it takes the last that is none of them.
_PROXIES: Final = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,100.64.0.0/10,fc00::/7"}
_TITLE: Final = "Deploy the app"
# In each README that is written here, and in no other.
_MARK: Final = "Written by `scripts/deploy_space.py`"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Space:
    """What a Space holds after a deployment.

    Attributes:
        repo_id: `org/name`.
        commit: The 40-character commit id of its files.
        is_changed: Whether this deployment made that commit.
        model_commit: The commit of the model repo that it serves, None where it holds the snapshot itself.
    """

    repo_id: str
    commit: str
    is_changed: bool
    model_commit: str | None


def check_deployable(root: Path, model: str | None = None) -> tuple[str, ...]:
    """Check that a clone is fit to be deployed: all that it needs is there and committed.

    Args:
        root: The clone.
        model: `org/name` of the model repo that the Space is to serve, None to deploy the clone's own snapshot.

    Returns:
        The files to upload, relative to the clone, but for the README, which is written for the Space.

    Raises:
        ConfigError: If it is not; the message lists every problem.
    """
    wanted = (*_TREE, *(() if model else (_SNAPSHOT,)))
    problems = [f"{name} is missing." for name in (*wanted, CARD_FILE) if not (root / name).exists()]
    problems += _changes(root, (*wanted, CARD_FILE))
    problems += _readme_problems(root)
    if not model and (root / _SNAPSHOT).is_dir():
        try:
            check_publishable(root / _SNAPSHOT)
        except ConfigError as error:
            problems.append(error.message)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ConfigError(f"{str(root)!r} is not fit to deploy:{listed}", hint="Mend every point, then try again.")
    return tuple(_git(root, "ls-files", "-z", "--", *wanted).rstrip("\0").split("\0"))


def deploy_space(
    root: Path,
    repo_id: str,
    *,
    model: str | None = None,
    revision: str | None = None,
    private: bool = False,
    replace: bool = False,
    token: str | None = None,
) -> Space:
    """Create a Space from a clone, or bring it up to date: one commit, and none where nothing changed.

    Files that have left the clone leave the Space. The model is pinned to a full commit in the Space's variables
    PNEUMONET_MODEL and PNEUMONET_REVISION, and FORWARDED_ALLOW_IPS is set where it is not; other variables, all secrets
    and what the Space's README says of signing in with Hugging Face stay as they are.

    Args:
        root: The clone.
        repo_id: `org/name` of the Space, created if need be.
        model: `org/name` of the model repo to serve, None to deploy the clone's own snapshot.
        revision: Branch, tag or commit of the model repo, None for its default branch.
        private: Whether a new Space is private.
        replace: Whether the files of a Space that was not deployed from here may be lost.
        token: Token that may write, None for HF_TOKEN or the saved one.

    Raises:
        ConfigError: If the clone is not fit to be deployed, the model repo holds no snapshot, or the Space is not ours.
        DownloadError: If the Hub cannot be used.
    """
    names = check_deployable(root, model)
    checked_repo_id(repo_id)
    api = HfApi(token=token)
    model_commit = _resolve(api, checked_repo_id(model), revision) if model else None
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=root / name) for name in names]
    try:
        is_new = not api.repo_exists(repo_id, repo_type="space")
        api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private or None, exist_ok=True)
        there = {
            file.path: file
            for file in api.list_repo_tree(repo_id, repo_type="space", recursive=True)
            if isinstance(file, RepoFile)
        }
        their_readme = _readme_there(api, repo_id, there)
        if not (is_new or replace or _MARK in their_readme):
            raise ConfigError(
                f"The Space {repo_id} was not deployed from here; its {len(there)} files would be lost.",
                hint="Name another Space, or say --replace.",
            )
        readme = _readme(root, model, model_commit, _sign_in_of(their_readme)).encode()
        operations.append(CommitOperationAdd(path_in_repo=CARD_FILE, path_or_fileobj=readme))
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            operation for operation in operations if not is_same(operation, there.get(operation.path_in_repo))
        ]
        left = sorted(there.keys() - {operation.path_in_repo for operation in operations} - {_THEIRS})
        changes += [CommitOperationDelete(path_in_repo=name) for name in left]
        commit = _commit(api, repo_id, changes, root)
        # After the files: what ran until now is never started with another model. A build takes longer than this.
        _set_variables(api, repo_id, {_MODEL: model, _REVISION: model_commit}, defaults=_PROXIES)
    except FAILURES as error:
        if isinstance(error, PneumoNetError):
            raise
        cause = explain(error, repo_id)
        raise DownloadError(
            f"The Space {repo_id} cannot be deployed: {cause.reason}.",
            repo_id=repo_id, revision=None, hint="Check the network, and that HF_TOKEN may write to that Space.",
        ) from error  # fmt: skip
    _log.info("%s is at commit %s, %d files changed.", repo_id, commit, len(changes))
    return Space(repo_id, commit, bool(changes), model_commit)


def _readme_there(api: HfApi, repo_id: str, there: Container[str]) -> str:
    if CARD_FILE not in there:
        return ""
    with TemporaryDirectory() as folder:
        readme = Path(api.hf_hub_download(repo_id, CARD_FILE, repo_type="space", local_dir=folder))
        return readme.read_bytes().decode(errors="replace")


def _sign_in_of(readme: str) -> dict[str, Any]:
    try:
        metadata = _parted(readme)[0]
    except (ValueError, yaml.YAMLError):
        # The Hub reads nothing of it either: nobody signs in there.
        return {}
    return {key: metadata[key] for key in _SIGN_IN_KEYS if key in metadata}


def _commit(api: HfApi, repo_id: str, changes: list[CommitOperationAdd | CommitOperationDelete], root: Path) -> str:
    """Return the commit that a Space is at once the changes are made."""
    if not changes:
        return api.repo_info(repo_id, repo_type="space").sha or ""
    source = f"From commit {_git(root, 'rev-parse', 'HEAD').strip()} of the source."
    made = api.create_commit(repo_id, changes, commit_message=_TITLE, commit_description=source, repo_type="space")
    return str(made.oid)


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise ConfigError(
            f"{str(root)!r} is no git clone.", hint="Deploy from a clone: what is not committed is not deployed."
        ) from None
    return done.stdout


def _changes(root: Path, names: tuple[str, ...]) -> list[str]:
    lines = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *names).splitlines()
    return [f"{line[3:]} differs from what is committed." for line in lines]


def _readme_problems(root: Path) -> list[str]:
    try:
        metadata, text = _parted((root / CARD_FILE).read_text())
        requirements = (root / "requirements.txt").read_text()
    except OSError:
        return []  # told as missing already
    except (ValueError, yaml.YAMLError):
        return [f"{CARD_FILE} has no front matter that can be read."]
    problems = [f"{CARD_FILE} has no {key} in its front matter." for key in _NEEDED_KEYS if not metadata.get(key)]
    if metadata.get("sdk") not in (None, "gradio"):
        problems.append(f"{CARD_FILE} has sdk {metadata['sdk']!r}, expected 'gradio'.")
    pin = _PIN.search(requirements)
    if pin is None or metadata.get("sdk_version") not in (None, pin[1]):
        pinned = f"gradio=={pin[1]}" if pin else "no gradio of one version"
        problems.append(f"{CARD_FILE} has sdk_version {metadata.get('sdk_version')}, requirements.txt {pinned}.")
    if metadata.get("app_file") and not (root / str(metadata["app_file"])).is_file():
        problems.append(f"{CARD_FILE} names {metadata['app_file']} as app_file, which is missing.")
    if DISCLAIMER not in " ".join(text.split()).lower():
        problems.append(f"{CARD_FILE} does not say that this is {DISCLAIMER}.")
    return problems


def _parted(readme: str) -> tuple[dict[str, Any], str]:
    """Return a README's front matter and the rest; ValueError where it has none."""
    parts = readme.split("---\n", 2)
    metadata = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    if not isinstance(metadata, dict):
        raise ValueError("no front matter")
    return metadata, parts[2]


def _readme(root: Path, model: str | None, model_commit: str | None, sign_in: dict[str, Any]) -> str:
    metadata = sign_in | _parted((root / CARD_FILE).read_text())[0]
    kept: dict[str, Any] = {key: metadata[key] for key in _KEPT_KEYS if key in metadata}
    kept |= {"models": [model]} if model else {}
    front = yaml.safe_dump(kept | {"pinned": False}, sort_keys=False, allow_unicode=True)
    weights = "in this repo" if not model else f"[{model}](https://huggingface.co/{model}) at commit `{model_commit}`"
    return f"""---
{front}---

# {kept["title"]}

{kept.get("short_description", "Chest X-ray pneumonia classification.")}

**Research use only. Not a medical device.** It informs and never diagnoses. Remove a patient's identity from a film
before you upload it.

Weights: {weights}. {_MARK}: what is changed here is lost with the next deployment, but for `hf_oauth` and
what belongs to it.
"""


def _resolve(api: HfApi, model: str, revision: str | None) -> str:
    """Return the full commit that a revision of a model repo is, which must hold a snapshot."""
    try:
        info = api.model_info(model, revision=revision)
    except FAILURES as error:
        cause = explain(error, model)
        raise DownloadError(
            f"The model {model} at {f'revision {revision}' if revision else 'its default branch'} cannot be served:"
            f" {cause.reason}.",
            repo_id=model, revision=revision, hint="Check --model, --revision, the network and HF_TOKEN.",
        ) from error  # fmt: skip
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit) or CONFIG_FILE not in {file.rfilename for file in info.siblings or ()}:
        raise ConfigError(f"The model repo {model} holds no snapshot: it has no {CONFIG_FILE}.")
    if info.private or info.gated:
        _log.warning("%s is private or gated: the Space needs a secret HF_TOKEN that may read it.", model)
    return commit


def _set_variables(api: HfApi, repo_id: str, wanted: dict[str, str | None], defaults: dict[str, str]) -> None:
    """Set variables of a Space, remove those that are None; each change restarts it, so what is right is left.

    The defaults are set where nobody has set anything.
    """
    there = {name: variable.value for name, variable in api.get_space_variables(repo_id).items()}
    missing = {name: value for name, value in defaults.items() if name not in there}
    for name, value in (wanted | missing).items():
        if value is None and name in there:
            api.delete_space_variable(repo_id, name)
        elif value is not None and there.get(name) != value:
            api.add_space_variable(repo_id, name, value)
