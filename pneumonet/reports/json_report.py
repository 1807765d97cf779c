"""The report as JSON; its schema is `report.schema.json` beside this file."""

import json
from pathlib import Path
from typing import Any, Final

from pneumonet import __version__
from pneumonet.rendering import data_uri
from pneumonet.reports.document import Report

FORMAT: Final = "pneumonet.report"
# The first number changes where a reader of the last one would fail, the second where something is added.
FORMAT_VERSION: Final = "1.1"
SCHEMA_FILE: Final = Path(__file__).with_name("report.schema.json")


def as_json(report: Report) -> bytes:
    """Return the report as JSON in UTF-8."""
    return json.dumps(as_dict(report), indent=2, ensure_ascii=False).encode()


def as_dict(report: Report) -> dict[str, Any]:
    """Return the report as the object that the schema describes."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "created": report.instant,
        "request_id": report.request_id,
        "language": report.language.tag,
        "disclaimer": report.disclaimer,
        "status": report.status,
        "summary": report.summary,
        "risk_level": report.risk.value,
        "risk_in_words": report.risk_in_words,
        "finding": _finding(report),
        "heatmap": _heatmap(report),
        "admission": {
            "accepted": report.status == "answered",
            "reasons": [{"code": reason.code, "message": reason.message} for reason in report.reasons],
        },
        "warnings": list(report.warnings),
        "next_steps": list(report.next_steps),
        "danger_signs": dict(zip(("heading", "signs"), report.danger_signs, strict=True)),
        "advice_source": report.advice_source,
        "limits": [{"about": about, "text": text} for about, text in report.limits],
        "film": {
            "sha256": report.film_sha256,
            "format": report.film.format,
            "width": report.film.width,
            "height": report.film.height,
            "frame": report.film.frame,
            "frames": report.film.frames,
        },
        "model": report.model.to_dict() | {"fingerprint": report.config.fingerprint, "weights_sha256": report.weights},
        "software": {"name": "PneumoNet", "version": __version__},
    }


def _finding(report: Report) -> dict[str, Any] | None:
    if report.finding is None:
        return None
    answer = report.finding.to_dict()
    for key in ("admission", "warnings", "model", "disclaimer", "risk_level"):
        del answer[key]
    return answer | {
        "coverage": report.coverage,
        "set_in_words": report.set_in_words,
        "calibration": report.calibration_note,
    }


def _heatmap(report: Report) -> dict[str, Any] | None:
    picture = report.overlay_picture
    if report.finding is None or picture is None:
        return None
    return {
        "of": report.finding.label,
        "words": report.map_in_words,
        "note": report.heatmap_note,
        "image": data_uri(picture),
    }
