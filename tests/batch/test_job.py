"""What a job sends along, and which rows are of one job."""

import json
import os
from pathlib import Path

import pytest

from pneumonet.batch.job import Job
from pneumonet.model import PneumoNet
from pneumonet.settings import Settings


def test_a_job_names_no_secret(tiny_model: PneumoNet) -> None:
    settings = Settings.from_environment(
        {
            "PNEUMONET_AUTH": "reader:s3cret",
            "PNEUMONET_REDIS_URL": "redis://:s3cret@cache",
            "PNEUMONET_CACHE_SECONDS": "60",
        }
    )
    job = Job.of(settings, tiny_model.snapshot, force=False, threads=1)
    assert "s3cret" not in json.dumps(dict(job.environment)) + repr(job)
    assert job.fingerprint("a") != job.fingerprint("b")
    assert job.fingerprint("a") == job.fingerprint(os.path.join("b", "..", "a"))
    other = Settings.from_environment({"PNEUMONET_MAX_MEGAPIXELS": "12"})
    assert job.fingerprint("a") != Job.of(other, tiny_model.snapshot, force=False, threads=1).fingerprint("a")
    assert job.fingerprint("a") == Job.of(settings, tiny_model.snapshot, force=False, threads=8).fingerprint("a")


def test_a_source_s_name_is_the_path_that_the_system_takes(tiny_model: PneumoNet, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "deep")
    job = Job.of(Settings(), tiny_model.snapshot, force=False, threads=1)
    up = os.path.join(tmp_path, "link", "..", "films")
    assert job.fingerprint(up) == job.fingerprint(str(tmp_path / "elsewhere" / "films"))
    assert job.fingerprint(up) != job.fingerprint(str(tmp_path / "films"))


@pytest.mark.parametrize(
    ("environment", "megabytes"),
    [({}, 100), ({"PNEUMONET_MAX_UPLOAD_MB": ""}, 100)]
    + [({"PNEUMONET_MAX_UPLOAD_MB": str(chosen)}, chosen) for chosen in (5, 10, 400)],
)
def test_an_archive_s_films_may_be_larger_than_an_upload_where_nobody_says(
    tiny_model: PneumoNet, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], megabytes: int
) -> None:
    monkeypatch.delenv("PNEUMONET_MAX_UPLOAD_MB", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    job = Job.of(Settings.from_environment(), tiny_model.snapshot, force=False, threads=1)
    assert job.largest_film_mb == megabytes
    assert Settings.from_environment(job.environment).max_upload_bytes == megabytes * 1_000_000
