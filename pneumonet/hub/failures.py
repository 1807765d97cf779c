"""What can fail between PneumoNet and the Hub, translated in this one place into a reason and a hint."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

# ValueError: a forced download that cannot reach the Hub; RuntimeError: hf_xet, and an upload of one file of many.
FAILURES: Final = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, RuntimeError, XetDownloadError)

_STORAGE_ERRORS: Final = frozenset({errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT})
_NETWORK_HINT: Final = "Check the network, the proxy and HF_ENDPOINT, then start again."


@dataclass(frozen=True)
class Cause:
    """Why the Hub could not be used.

    Attributes:
        reason: Half a sentence, fit to follow a colon.
        hint: One sentence that says what to do.
    """

    reason: str
    hint: str


def explain(error: BaseException, repo_id: str) -> Cause:
    """Return why a call to the Hub failed, never with the library's own text, which may hold signed addresses."""
    error = _telling(error)
    if isinstance(error, HfHubHTTPError):
        return _explain_answer(error, repo_id)
    if isinstance(error, OfflineModeIsEnabled):
        return Cause("HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE to pull it.")
    if isinstance(error, httpx2.TimeoutException):
        return Cause("the Hub did not answer in time", _NETWORK_HINT)
    if isinstance(error, httpx2.TransportError):
        return Cause("the Hub cannot be reached", _NETWORK_HINT)
    if isinstance(error, FileMetadataError | httpx2.InvalidURL):
        return Cause("what answers is no Hugging Face Hub", _NETWORK_HINT)
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRORS:
        return Cause(f"the cache folder cannot be written ({error.strerror})", "Free space, or set HF_HOME.")
    return Cause(f"the transfer failed ({type(error).__name__})", _NETWORK_HINT)


def missing_file(error: RemoteEntryNotFoundError, repo_id: str) -> str:
    """Return the name of the file that a commit of a repo lacks."""
    path = error.response.url.path
    return path.split("/resolve/", 1)[-1].split("/", 1)[-1] if f"/{repo_id}/resolve/" in path else "a file"


def missing_in_commit(error: RemoteEntryNotFoundError) -> str:
    """Return the commit that lacks a file, or words for it where the Hub does not name it."""
    return error.response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT) or "(the newest)"


def _explain_answer(error: HfHubHTTPError, repo_id: str) -> Cause:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return Cause(
            "the repo is gated and access has not been granted",
            f"Accept its terms at https://huggingface.co/{repo_id}, then set HF_TOKEN to a token of that account.",
        )
    if isinstance(error, RevisionNotFoundError):
        return Cause(
            "the repo has no such revision",
            "Set PNEUMONET_REVISION to a branch, a tag or a full 40-character commit id of the repo.",
        )
    if isinstance(error, DisabledRepoError):
        return Cause("the Hub has disabled the repo", "Point PNEUMONET_MODEL at another repo or a folder.")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return Cause(
            "the Hub has no such repo, or it is private",
            "Check PNEUMONET_MODEL (a folder is written ./name); for a private repo set HF_TOKEN.",
        )
    if status == 401:
        return Cause("the Hub does not accept the token (HTTP 401)", "Set HF_TOKEN to a valid token, or unset it.")
    if status == 403:
        return Cause("the Hub refuses access (HTTP 403)", "Set HF_TOKEN to a token that may use the repo.")
    if status == 429:
        return Cause("the Hub asks to slow down (HTTP 429)", "Wait some minutes, or set HF_TOKEN for a higher limit.")
    return Cause(
        f"the Hub answered with an error (HTTP {status})", "Try again later: see https://status.huggingface.co"
    )


def _telling(error: BaseException) -> BaseException:
    """Return the error of a chain that tells most: huggingface_hub wraps the Hub's answer in errors of the cache."""
    tell = (HfHubHTTPError, httpx2.TransportError, OfflineModeIsEnabled, FileMetadataError)
    return next((link for link in _chain(error) if isinstance(link, tell)), error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
