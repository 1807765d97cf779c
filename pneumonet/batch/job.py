"""What each process of a batch has to know to give the same rows as every other."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pneumonet import __version__
from pneumonet.hub import Snapshot
from pneumonet.settings import Settings

FILM_SECONDS: Final = 120
STOP_AFTER: Final = 20
# Raised where rows come to mean something else: those of an older PneumoNet are then not taken for a resumed run.
_ROWS: Final = 2
# An archive of uncompressed DICOM is no upload: its largest films have 40 megapixels of 16 bits.
_LARGEST_FILM_MB: Final = 100


@dataclass(frozen=True)
class Job:
    """One batch, fit to be sent to another machine: it holds no secret.

    Attributes:
        environment: The settings that decide what a film's row says, as environment variables.
        revision: The model's revision, in every row.
        force: Answer films that admission refuses.
        threads: How many threads one process computes with.
        film_seconds: How long one film may take before its process is ended; together too where they share a pass.
        stop_after: After how many films in a row that failed for no fault of theirs the rest is left; 0 for never.
    """

    environment: Mapping[str, str]
    revision: str
    force: bool
    threads: int
    film_seconds: float = FILM_SECONDS
    stop_after: int = STOP_AFTER

    @classmethod
    def of(
        cls,
        settings: Settings,
        snapshot: Snapshot,
        *,
        force: bool,
        threads: int,
        film_seconds: float = FILM_SECONDS,
        stop_after: int = STOP_AFTER,
    ) -> "Job":
        """Pin a job to a snapshot that was opened, so that a branch that moves meanwhile changes no row."""
        environment = {
            "PNEUMONET_MODEL": str(snapshot.path.absolute()) if snapshot.repo_id is None else snapshot.repo_id,
            "PNEUMONET_REVISION": snapshot.revision,
            "PNEUMONET_DEVICE": settings.device,
            "PNEUMONET_ENGINE": settings.engine,
            "PNEUMONET_MAX_UPLOAD_MB": str(_largest_film_mb(settings)),
            "PNEUMONET_MAX_MEGAPIXELS": str(settings.max_pixels // 1_000_000),
        }
        return cls(environment, snapshot.revision, force, threads, film_seconds, stop_after)

    @property
    def largest_film_mb(self) -> int:
        """The largest file that is read, in units of 1,000,000 bytes."""
        return int(self.environment["PNEUMONET_MAX_UPLOAD_MB"])

    def fingerprint(self, source: str) -> str:
        """Return what tells rows of this job over a source from those of another, as a hash that tells nothing else.

        `force` is not in it: it changes the rows of refused films alone, and these tell it.
        """
        options = [_ROWS, __version__, dict(self.environment), self.revision, os.path.realpath(source)]
        return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def _largest_film_mb(settings: Settings) -> int:
    chosen = settings.max_upload_bytes // 1_000_000
    is_default = settings.max_upload_bytes == Settings().max_upload_bytes
    return _LARGEST_FILM_MB if is_default and not os.environ.get("PNEUMONET_MAX_UPLOAD_MB") else chosen
