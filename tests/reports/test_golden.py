"""Reports of one made-up finding against kept ones, so that no structure changes unseen.

What is kept came from these reports themselves: that it is right the other tests say; this one only says that it has
changed. After a change that was meant, write it anew and read the difference before it is committed:

    python -m tests.reports.test_golden
"""

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pypdf import PdfReader

from pneumonet import __version__
from pneumonet.admission import Admission
from pneumonet.finding import ENSEMBLE, Finding, ModelInfo
from pneumonet.reading import read_radiograph
from pneumonet.reports import FORMATS, render
from pneumonet.reports.document import Report
from pneumonet.snapshot import (
    AdmissionConfig,
    AgreementConfig,
    FileDigest,
    InputConfig,
    MemberConfig,
    PredictionSetConfig,
    SnapshotConfig,
)
from pneumonet.taxonomy import CLASS_NAMES, Risk
from tests.reports.conftest import dicom_film

FOLDER = Path(__file__).parent / "golden"
MEMBERS = (
    MemberConfig("convnext_tiny", "ConvNeXt-Tiny", "test_convnext", 0.4, 1.3, "stages.3"),
    MemberConfig("efficientnetv2_s", "EfficientNetV2-S", "test_efficientnet", 0.6, 0.8, "bn2"),
)
CONFIG = SnapshotConfig(
    version="9.8.7",
    held_back_fold=0,
    input=InputConfig(96, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    members=MEMBERS,
    admission=AdmissionConfig(
        64, 3, 0.02, 0.1, 0.1, 0.5, "presentation.safetensors", "admission.safetensors", {"a": 1}
    ),
    prediction_set=PredictionSetConfig(0.9, dict.fromkeys(CLASS_NAMES, 0.05)),
    agreement=AgreementConfig(0.5),
    files={f"{member.name}/model.safetensors": FileDigest(1, f"{i}" * 64) for i, member in enumerate(MEMBERS, 1)},
    fingerprint="abcdef012345",
)


def fixed_report() -> Report:
    """A report that no model has a part in."""
    data = dicom_film()
    film = read_radiograph(data)
    shares = {"BACTERIAL_PNEUMONIA": 0.9235, "NORMAL": 0.0101, "VIRAL_PNEUMONIA": 0.0664}
    model = ModelInfo("org/weights", "c0ffee" * 6 + "c0ff", CONFIG.version)
    finding = Finding(
        label="BACTERIAL_PNEUMONIA",
        probabilities=shares,
        confidence=0.9235,
        prediction_set=("BACTERIAL_PNEUMONIA", "VIRAL_PNEUMONIA"),
        risk=Risk.HIGH,
        admission=Admission(True),
        model=model,
        film=film,
        saliency={ENSEMBLE: dict.fromkeys(CLASS_NAMES, np.eye(4, dtype=np.float32) * [0.1, 0.1, 0.1, 1])},
        member_probabilities={member.name: shares for member in MEMBERS},
        warnings=("A warning of the film.",),
    )
    created = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    return Report(finding, film, data, model, CONFIG, "0123456789abcdef", created)


def _of_json(data: bytes) -> Any:
    document = json.loads(data)
    document["heatmap"]["image"] = document["heatmap"]["image"].split(",")[0]
    return document


def _of_fhir(data: bytes) -> Any:
    names: dict[str, str] = {}
    return json.loads(
        re.sub(r"urn:uuid:[\w-]+", lambda found: names.setdefault(found[0], f"urn:uuid:{len(names)}"), data.decode())
    )


def _of_pdf(data: bytes) -> Any:
    pdf = PdfReader(BytesIO(data))
    root: Any = pdf.trailer["/Root"]
    (document,) = root["/StructTreeRoot"]["/K"]
    elements = [kid.get_object() for kid in document.get_object()["/K"]]
    return {
        "viewer": {name: str(value) for name, value in root["/ViewerPreferences"].items()},
        "language": root["/Lang"],
        "tags": " ".join(element["/S"][1:] for element in elements),
        "alternatives": [element["/Alt"] for element in elements if "/Alt" in element],
        "pages": [page.extract_text().splitlines() for page in pdf.pages],
    }


def _of_dicom(data: bytes) -> Any:
    return _plain(dcmread(BytesIO(data)))


def _plain(dataset: Dataset) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for element in dataset:
        name = f"{element.keyword} {element.VR}"
        if element.VR == "SQ":
            plain[name] = [_plain(item) for item in element.value]
        elif element.VR in ("UI", "DA", "TM", "DT") or element.keyword == "PixelData":
            # Made anew each time, or as wide as the picture: that it is there is what is kept.
            plain[name] = element.VM
        else:
            plain[name] = element.to_json_dict(None, 0).get("Value", [])
    return plain


CONTENTS: dict[str, Callable[[bytes], Any]] = {
    "json": _of_json,
    "fhir": _of_fhir,
    "pdf": _of_pdf,
    "dicom-sr": _of_dicom,
    "dicom-sc": _of_dicom,
}


def content(name: str) -> Any:
    """What a report of a format says, less what differs from one time to the next."""
    report = fixed_report()
    text = json.dumps(CONTENTS[name](render(report, FORMATS[name])), ensure_ascii=False)
    # A release, and a library that writes the film's file otherwise, change no report.
    text = re.sub(rf"\b{re.escape(__version__)}\b", "VERSION", text.replace(report.film_sha256, "DIGEST"))
    return json.loads(text)


@pytest.mark.parametrize("name", FORMATS)
def test_a_report_is_as_it_was(name: str) -> None:
    assert content(name) == json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def test_there_is_one_of_each_format_and_they_are_small() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(FORMATS)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 120_000


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in FORMATS:
        kept = json.dumps(content(each), ensure_ascii=False, indent=1)
        (FOLDER / f"{each}.json").write_text(kept + "\n", encoding="utf-8")
