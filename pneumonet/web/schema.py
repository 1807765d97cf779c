"""What the plain routes take and answer, for the OpenAPI schema at /openapi.json."""

from typing import Any, Final

from pneumonet.language import LANGUAGES
from pneumonet.reports import FORMATS
from pneumonet.taxonomy import CLASS_NAMES, Risk

_SHARE: Final = {"type": "number", "minimum": 0, "maximum": 1}
_PROBABILITIES: Final = {
    "type": "object",
    "properties": dict.fromkeys(CLASS_NAMES, _SHARE),
    "required": list(CLASS_NAMES),
}
_REASONS: Final = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        "required": ["code", "message"],
    },
}
_MODEL: Final = {
    "type": "object",
    "properties": {
        "repo_id": {"type": ["string", "null"]},
        "revision": {"type": "string"},
        "version": {"type": "string"},
    },
    "required": ["revision", "version"],
}
_OPTIONS: Final = {
    "disable_cam": {"type": "boolean", "description": "Answer without a heatmap."},
    "force": {"type": "boolean", "description": "Answer a film that admission would refuse."},
    "frame": {"type": "integer", "minimum": 0, "description": "Which frame of several, from 0."},
}
_ANSWER: Final = {
    "type": "object",
    "properties": {
        "prediction": {"enum": [name.replace("_", " ") for name in CLASS_NAMES]},
        "confidence": {"type": "string", "examples": ["92.35%"]},
        "risk_level": {"enum": [risk.value for risk in Risk]},
        "gradcam_image": {"type": ["string", "null"], "description": "The heatmap laid over the film, a PNG data URI."},
        "probabilities": _PROBABILITIES,
        "prediction_set": {"type": "array", "items": {"enum": list(CLASS_NAMES)}, "minItems": 1},
        "members": {"type": "object", "additionalProperties": _PROBABILITIES},
        "admission": {
            "type": "object",
            "properties": {"accepted": {"type": "boolean"}, "reasons": _REASONS},
            "required": ["accepted", "reasons"],
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
        "model": _MODEL,
        "disclaimer": {"type": "string"},
        "timings": {"type": "object", "additionalProperties": {"type": "number"}},
        "request_id": {"type": "string"},
        "duration_ms": {"type": "number"},
    },
    "required": ["prediction", "confidence", "risk_level", "probabilities", "prediction_set", "admission", "warnings",
                 "model", "disclaimer", "request_id", "duration_ms"],
}  # fmt: skip
_ERROR: Final = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "code": {"type": "string"},
        "hint": {"type": "string"},
        "request_id": {"type": "string"},
        "reasons": _REASONS,
    },
    "required": ["error", "code", "hint", "request_id"],
}
_ENGINE: Final = {
    "type": "object",
    "properties": {key: {"type": "string"} for key in ("name", "device", "precision")},
    "required": ["name", "device", "precision"],
}
_HEALTH: Final = {
    "type": "object",
    "properties": {
        "status": {"enum": ["healthy", "starting", "unhealthy"]},
        "timestamp": {"type": "string", "format": "date-time"},
        "models_loaded": {"type": "boolean"},
        "version": {"type": "string"},
        "model": {"anyOf": [_MODEL, {"type": "null"}]},
        "engine": {"anyOf": [_ENGINE, {"type": "null"}]},
        "memory_mib": {"type": "integer", "minimum": 0, "description": "Resident memory of the process, in MiB."},
        "queue": {
            "type": "object",
            "properties": {
                "length": {"type": "integer"},
                "most": {"type": "integer"},
                "oldest_seconds": {
                    "type": "number",
                    "description": "For how long the oldest film, preview or report has been at work; one that never "
                    "ends makes the server unhealthy.",
                },
            },
            "required": ["length", "most", "oldest_seconds"],
        },
    },
    "required": ["status", "timestamp", "models_loaded", "version", "model", "engine", "memory_mib", "queue"],
}
_MEANINGS: Final = {
    400: "The request is malformed, or holds no film.",
    406: "The request accepts none of the formats that are offered.",
    401: "The server wants a login.",
    403: "Another site's page asks.",
    413: "The film has too many bytes or pixels.",
    415: "The film is of no format that is read.",
    422: "The film cannot be read, or admission refuses it.",
    429: "Too many requests from one address.",
    500: "Our fault; the log has it under the request id.",
    503: "Busy, starting, or too slow; see Retry-After.",
}


_BINARY: Final = {"type": "string", "format": "binary"}
_REPORTS: Final[dict[str, dict[str, Any]]] = dict.fromkeys(FORMATS, _BINARY) | {
    # Beside /openapi.json, whatever the prefix that both are behind.
    "json": {"$ref": "schema/report.json"},
    "fhir": {
        "type": "object",
        "description": "A FHIR R4B Bundle.",
        "properties": {"resourceType": {"const": "Bundle"}},
        "required": ["resourceType"],
    },
}
_LANGUAGE: Final = (
    {
        "name": "lang",
        "in": "query",
        "description": "The language of sentences and reports. What programs read is the same in all.",
        "schema": {"enum": list(LANGUAGES)},
    },
    {
        "name": "Accept-Language",
        "in": "header",
        "description": "The same by preference (RFC 9110, 12.5.4), where `lang` names none.",
        "schema": {"type": "string", "examples": ["de-CH, de;q=0.9, en;q=0.5"]},
    },
)


def _json(schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _or_report(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what is answered, or the report that is asked for by `format` or Accept."""
    return answer | {
        "content": answer["content"] | {kind.media_type: {"schema": _REPORTS[kind.name]} for kind in FORMATS.values()}
    }


ERRORS: Final[dict[int | str, dict[str, Any]]] = {status: _json(_ERROR, words) for status, words in _MEANINGS.items()}
PREDICT: Final[dict[str, Any]] = {
    "operation_id": "predict",
    "summary": "Answer one film.",
    "openapi_extra": {
        "parameters": [
            {
                "name": "format",
                "in": "query",
                "description": "A report in place of the plain answer; Accept may ask for one too. Its JSON is "
                "described at /schema/report.json.",
                "schema": {"enum": list(FORMATS)},
            },
            *_LANGUAGE,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "string", "format": "binary"}, **_OPTIONS},
                        "required": ["file"],
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "file_data": {"type": "string", "description": "Base64 of the film, or a data URI."},
                            **_OPTIONS,
                        },
                        "required": ["file_data"],
                    }
                },
            },
        },
    },
    "responses": {
        **ERRORS,
        200: _or_report(_json(_ANSWER, "The finding. Research use only, not a medical device.")),
        422: _or_report(ERRORS[422]),
    },
}
HEALTH: Final[dict[str, Any]] = {
    "summary": "Say whether films are answered.",
    "responses": {200: _json(_HEALTH, "Healthy."), 503: _json(_HEALTH, "Starting or unhealthy.")},
}
METRICS: Final[dict[str, Any]] = {
    "summary": "Counters in Prometheus' text format.",
    "responses": {200: {"description": "The counters.", "content": {"text/plain": {"schema": {"type": "string"}}}},
                  401: ERRORS[401], 404: _json(_ERROR, "They are not for whoever asks.")},
}  # fmt: skip
API: Final[dict[str, Any]] = {
    "summary": "Say what the service offers: routes, limits and errors.",
    "responses": {200: _json({"type": "object"}, "What the service offers."), 401: ERRORS[401]},
}
