"""Publish a snapshot to the Hub: refuse what is incomplete, upload in one commit, tag the version."""

import json
import logging
import math
import re
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.hf_api import RepoFile
from safetensors import SafetensorError, safe_open

from pneumonet.errors import ConfigError, DownloadError, PneumoNetError, SnapshotError
from pneumonet.hub.failures import FAILURES, explain
from pneumonet.hub.opened import read_config
from pneumonet.hub.repo import checked_repo_id, is_same, max_bytes
from pneumonet.snapshot import (
    CARD_FILE,
    CONFIG_FILE,
    MEMBER_CONFIG_FILE,
    MEMBER_WEIGHTS_FILE,
    METRICS_FILE,
    SnapshotConfig,
    has_digest,
)
from pneumonet.timm_config import check_timm_configs

METRICS_KEYS: Final = ("accuracy", "auroc_macro", "n", "data", "model")
DISCLAIMER: Final = "not a medical device"
_PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib"})
_PLACEHOLDER: Final = re.compile(r"\[?more information needed\]?|\b(?:TODO|TBD|FIXME)\b|lorem ipsum", re.IGNORECASE)

_log = logging.getLogger(__name__)


def check_publishable(folder: Path) -> tuple[str, ...]:
    """Check that a snapshot folder is fit to publish.

    Returns:
        The files to upload, relative to the folder.

    Raises:
        ConfigError: If it is not; the message lists every problem.
    """
    problems = [*_snapshot_problems(folder), *_pickle_problems(folder), *_card_problems(folder / CARD_FILE)]
    problems += _metrics_problems(folder / METRICS_FILE)
    if problems:
        listed = "".join(f"\n- {problem}" for problem in problems)
        raise ConfigError(f"{str(folder)!r} is not fit to publish:{listed}", hint="Mend every point, then try again.")
    names = [CARD_FILE, CONFIG_FILE, METRICS_FILE, *read_config(folder).files]
    names += sorted(path.relative_to(folder).as_posix() for path in folder.glob("figures/*.png"))
    names += ["LICENSE"] if (folder / "LICENSE").is_file() else []
    return tuple(dict.fromkeys(names))


def publish(
    folder: Path,
    repo_id: str,
    *,
    tag: str | None = None,
    private: bool = False,
    token: str | None = None,
    message: str | None = None,
) -> str:
    """Publish a snapshot folder: one commit, and a tag that is never moved.

    Publishing the same files again changes nothing.

    Args:
        folder: The snapshot.
        repo_id: `org/name`, created if need be.
        tag: Tag of the commit, None for `v` and the config's version.
        private: Whether a new repo is private.
        token: Token that may write, None for HF_TOKEN or the saved one.
        message: Title of the commit.

    Returns:
        The 40-character commit id that the tag names.

    Raises:
        ConfigError: If the folder is incomplete, or the tag already marks other files.
        DownloadError: If the Hub cannot be used.
    """
    names = check_publishable(folder)
    tag = tag or f"v{read_config(folder).version}"
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in names]
    return _upload(repo_id, operations, tag, private=private, token=token, message=message or f"Publish {tag}")


def publish_member(
    folder: Path, repo_id: str, member: str, *, tag: str | None = None, private: bool = False, token: str | None = None
) -> str:
    """Publish one backbone as a repo of its own, for `timm.create_model("hf-hub:...", pretrained=True)`.

    Args:
        folder: The snapshot, fit to publish.
        repo_id: The ensemble's repo; the member's is `{repo_id}-{member}`.
        member: Name of the member.
        tag: Tag of the commit, None for `v` and the config's version.
        private: Whether a new repo is private.
        token: Token that may write, None for HF_TOKEN or the saved one.

    Returns:
        The 40-character commit id that the tag names.

    Raises:
        ConfigError: If the folder is incomplete, has no such member, or the tag already marks other files.
        DownloadError: If the Hub cannot be used.
    """
    check_publishable(folder)
    config = read_config(folder)
    if member not in [known.name for known in config.members]:
        raise ConfigError(f"The snapshot has no member {member!r}.")
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / member / name)
        for name in (MEMBER_CONFIG_FILE, MEMBER_WEIGHTS_FILE)
    ]
    card = _member_card(folder, repo_id, member).encode()
    operations.append(CommitOperationAdd(path_in_repo=CARD_FILE, path_or_fileobj=card))
    tag = tag or f"v{config.version}"
    return _upload(f"{repo_id}-{member}", operations, tag, private=private, token=token, message=f"Publish {tag}")


def _upload(
    repo_id: str, operations: list[CommitOperationAdd], tag: str, *, private: bool, token: str | None, message: str
) -> str:
    checked_repo_id(repo_id)
    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private or None, exist_ok=True)
        if tagged := _commit_of_tag(api, repo_id, tag, operations):
            _log.info("%s already holds these files as %s.", repo_id, tag)
            return tagged
        commit = api.create_commit(repo_id, operations, commit_message=message).oid
        api.create_tag(repo_id, tag=tag, revision=commit)
    except PneumoNetError:
        raise
    except FAILURES as error:
        cause = explain(error, repo_id)
        raise DownloadError(
            f"{repo_id} cannot be published: {cause.reason}.",
            repo_id=repo_id, revision=tag, hint="Check the network, and that HF_TOKEN may write to that repo.",
        ) from error  # fmt: skip
    _log.info("Published %s as %s: commit %s.", repo_id, tag, commit)
    return commit


def _commit_of_tag(api: HfApi, repo_id: str, tag: str, operations: list[CommitOperationAdd]) -> str | None:
    commit = next((ref.target_commit for ref in api.list_repo_refs(repo_id).tags if ref.name == tag), None)
    if commit is None:
        return None
    names = [operation.path_in_repo for operation in operations]
    there = {file.path: file for file in api.get_paths_info(repo_id, names, revision=tag) if isinstance(file, RepoFile)}
    differing = [op.path_in_repo for op in operations if not is_same(op, there.get(op.path_in_repo))]
    if differing:
        raise ConfigError(
            f"The tag {tag} of {repo_id} already marks other files: {', '.join(differing)} differ.",
            hint=f"Raise the version in {CONFIG_FILE}, or choose another tag: a published tag is never moved.",
        )
    return commit


def _snapshot_problems(folder: Path) -> list[str]:
    try:
        config = read_config(folder)
        problems = [problem for name in config.files if (problem := _file_problem(folder, name, config))]
        if not problems:
            check_timm_configs(folder, config)
    except SnapshotError as error:
        return [error.message]
    return problems


def _file_problem(folder: Path, name: str, config: SnapshotConfig) -> str | None:
    path, digest = folder / name, config.files[name]
    if not path.is_file():
        return f"{name} is missing."
    if not has_digest(path, digest):
        return f"{name} does not have the size and SHA-256 that {CONFIG_FILE} gives."
    if digest.size > max_bytes(name):
        return f"{name} has more than {max_bytes(name) / 1e6:.0f} MB and would not be pulled."
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy"):
                return None
        except SafetensorError:
            return f"{name} is no safetensors file."
    return None


def _pickle_problems(folder: Path) -> list[str]:
    pickles = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _PICKLE_SUFFIXES)
    return [f"{path.relative_to(folder).as_posix()} may be a pickle: remove it." for path in pickles]


def _card_problems(path: Path) -> list[str]:
    try:
        card = ModelCard.load(path, ignore_metadata_errors=False)
    except (OSError, ValueError, yaml.YAMLError) as error:
        return [f"{CARD_FILE} is missing or its front matter cannot be read ({type(error).__name__})."]
    data = card.data.to_dict()
    problems = [f"{CARD_FILE} has no {key} in its front matter." for key in _missing_keys(data)]
    if data.get("pipeline_tag") not in (None, "image-classification"):
        problems.append(f"{CARD_FILE} has pipeline_tag {data['pipeline_tag']!r}, expected 'image-classification'.")
    if found := sorted({match.group() for match in _PLACEHOLDER.finditer(card.content)}):
        problems.append(f"{CARD_FILE} still holds placeholders: {', '.join(found)}.")
    if DISCLAIMER not in " ".join(card.text.split()).lower():
        problems.append(f"{CARD_FILE} does not say that this is {DISCLAIMER}.")
    return problems


def _missing_keys(data: dict[str, Any]) -> list[str]:
    return [key for key in ("license", "pipeline_tag", "library_name", "model-index") if not data.get(key)]


def _metrics_problems(path: Path) -> list[str]:
    try:
        metrics = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return [f"{METRICS_FILE} is missing or is no JSON."]
    if not isinstance(metrics, dict):
        return [f"{METRICS_FILE} holds no JSON object."]
    problems = [f"{METRICS_FILE} lacks {key!r}." for key in METRICS_KEYS if key not in metrics]
    for key in ("accuracy", "auroc_macro"):
        if key in metrics and not _is_share(metrics[key]):
            problems.append(f"{METRICS_FILE} has {key} {metrics[key]!r}, expected a number from 0 to 1.")
    return problems


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1


def _member_card(folder: Path, repo_id: str, member: str) -> str:
    license_name = ModelCard.load(folder / CARD_FILE).data.to_dict()["license"]
    name = f"{repo_id}-{member}"
    return f"""---
license: {license_name}
library_name: timm
pipeline_tag: image-classification
---

# {name}

One backbone of the ensemble [{repo_id}](https://huggingface.co/{repo_id}), which has the evaluation, the calibration
and the limits. For research use only: {DISCLAIMER}.

```python
import timm

model = timm.create_model("hf-hub:{name}", pretrained=True)  # without pretrained=True the weights are random
```
"""
