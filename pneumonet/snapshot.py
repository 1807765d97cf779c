"""The snapshot: a folder of weights and the config.json that says what they mean.

Weights, temperatures, sizes, target layers and thresholds are data that travel together; none is a constant in code.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pneumonet.errors import SnapshotError
from pneumonet.taxonomy import CLASS_NAMES

CONFIG_FILE: Final = "config.json"
CARD_FILE: Final = "README.md"
METRICS_FILE: Final = "metrics.json"
MEMBER_CONFIG_FILE: Final = "config.json"
MEMBER_WEIGHTS_FILE: Final = "model.safetensors"
FORMAT: Final = 2
# Each brings weights of up to the largest size that is pulled.
_MOST_MEMBERS: Final = 8
_SHOWN_CHARACTERS: Final = 200

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
# A config comes from a repo that a stranger may own: names are short, and no path leaves the snapshot.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=100)]
_Words = Annotated[str, Field(max_length=100)]


@dataclass(frozen=True)
class MemberConfig:
    """One backbone of the ensemble.

    Attributes:
        name: Short name, also the folder below the snapshot that `timm` loads by itself.
        display_name: Name on the page.
        architecture: timm architecture.
        weight: Share of its probabilities in the ensemble's; the shares sum to 1.
        temperature: Divisor of its logits before the softmax (Guo et al., ICML 2017).
        target_layer: Dotted name of the module whose output Grad-CAM explains; what `forward_features` returns.
    """

    name: _Name
    display_name: _Words
    architecture: _Name
    weight: Annotated[float, Field(gt=0, le=1)]
    temperature: _Positive
    target_layer: _Words


@dataclass(frozen=True)
class InputConfig:
    """How a film becomes a backbone's input: squashed to `size` with antialiased bilinear, three equal channels.

    Attributes:
        size: Side of the square input in pixels.
        mean: Mean of each channel, subtracted from pixels in [0, 1].
        std: Deviation of each channel, divided by.
    """

    size: Annotated[int, Field(ge=32, le=2048)]
    mean: tuple[_Finite, _Finite, _Finite]
    std: tuple[_Positive, _Positive, _Positive]


@dataclass(frozen=True)
class AdmissionConfig:
    """Thresholds of admission, set by `scripts/calibrate.py` on held-back chest films.

    Attributes:
        min_side: Fewest pixels on a side.
        max_aspect: Largest ratio of the longer to the shorter side.
        min_contrast: Smallest deviation of the pixels, in [0, 1].
        min_detail: Smallest share of the deviation that a picture of 32 pixels a side could not hold, in [0, 1].
        max_colourfulness: Largest mean difference between channels, in [0, 1].
        min_upright: Smallest probability of an upright, whole chest, in [0, 1].
        presentation_file: Safetensors file of the presentation classifier, relative to the snapshot.
        features_file: Safetensors file of the feature spaces, relative to the snapshot.
        max_distance: Largest distance from the training films for each member, by its name.
    """

    min_side: Annotated[int, Field(ge=1)]
    max_aspect: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    min_contrast: _Share
    min_detail: _Share
    max_colourfulness: _Share
    min_upright: _Share
    presentation_file: _Name
    features_file: _Name
    max_distance: Annotated[dict[str, _Positive], Field(min_length=1)]

    @property
    def files(self) -> tuple[str, str]:
        """The files that admission loads, relative to the snapshot."""
        return self.presentation_file, self.features_file


@dataclass(frozen=True)
class PredictionSetConfig:
    """Class-conditional split-conformal prediction sets: each class of at least its threshold of probability.

    Attributes:
        coverage: Share of held-back films of each class whose class the set holds, in (0, 1).
        thresholds: Smallest probability of each class in the set, by its name.
    """

    coverage: Annotated[float, Field(gt=0, lt=1)]
    thresholds: dict[str, _Share]


@dataclass(frozen=True)
class AgreementConfig:
    """When the members are said to disagree, set by `scripts/calibrate.py` on held-back films.

    Attributes:
        max_total_variation: Largest total variation distance of two members' probabilities, in [0, 1].
    """

    max_total_variation: _Share


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-256 of a file of the snapshot."""

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class SnapshotConfig:
    """The contents of a snapshot's config.json.

    Attributes:
        version: Version of the weights, apart from that of the code.
        held_back_fold: Fold of the committed split whose patients no member was trained on.
        files: Digest of each file that the app loads and of no other, by its path relative to the snapshot.
        fingerprint: First 12 hex digits of the SHA-256 of config.json, which itself holds every other digest.
    """

    version: _Words
    held_back_fold: Annotated[int, Field(ge=0)]
    input: InputConfig
    members: Annotated[tuple[MemberConfig, ...], Field(max_length=_MOST_MEMBERS)]
    admission: AdmissionConfig
    prediction_set: PredictionSetConfig
    agreement: AgreementConfig
    files: dict[str, FileDigest]
    fingerprint: str

    @classmethod
    def read(cls, folder: Path) -> "SnapshotConfig":
        """Read and check a snapshot's config.json.

        Raises:
            SnapshotError: If it is missing, damaged, or contradicts itself.
        """
        path = folder / CONFIG_FILE
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise SnapshotError(f"The snapshot has no readable {CONFIG_FILE}.") from error
        try:
            data = json.loads(raw)
            _check_contract(data)
            config = _CONFIG.validate_python(data | {"fingerprint": hashlib.sha256(raw).hexdigest()[:12]})
        except (ValidationError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise SnapshotError(f"The snapshot's {CONFIG_FILE} cannot be understood: {_why(error)}.") from error
        config._check()
        return config

    def _check(self) -> None:
        total = sum(member.weight for member in self.members)
        if abs(total - 1) > 1e-6 or len({member.name for member in self.members}) < len(self.members):
            raise SnapshotError(
                f"Expected members in {CONFIG_FILE} of different names whose weights sum to 1, got weights of {total}."
            )
        if list(self.prediction_set.thresholds) != list(CLASS_NAMES):
            raise SnapshotError(f"Expected prediction_set.thresholds in {CONFIG_FILE} of {', '.join(CLASS_NAMES)}.")
        required = _required_files(self.members, self.admission)
        if absent := [name for name in required if name not in self.files]:
            raise SnapshotError(f"The snapshot's {CONFIG_FILE} has no digest of {absent[0]}.")
        if needless := sorted(self.files.keys() - set(required)):
            shown = needless[0][:_SHOWN_CHARACTERS]
            raise SnapshotError(f"The snapshot's {CONFIG_FILE} names a file that nothing loads: {shown!r}.")


_CONFIG: Final = TypeAdapter(SnapshotConfig)


def _required_files(members: Sequence[MemberConfig], admission: AdmissionConfig) -> tuple[str, ...]:
    of_members = [f"{m.name}/{file}" for m in members for file in (MEMBER_CONFIG_FILE, MEMBER_WEIGHTS_FILE)]
    return (*of_members, *admission.files)


def _check_contract(data: Any) -> None:
    if data["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {data['format']!r}")
    if data["class_names"] != list(CLASS_NAMES):
        raise ValueError(f"expected class_names {list(CLASS_NAMES)}, got {data['class_names']!r}")


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:_SHOWN_CHARACTERS]
    return repr(error)[:_SHOWN_CHARACTERS]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def has_digest(path: Path, digest: FileDigest) -> bool:
    """Return whether a file has the size and SHA-256 that a config gives it."""
    # The size first: it spares hashing a file that was cut short.
    return path.stat().st_size == digest.size and sha256_of(path) == digest.sha256


def verify_files(folder: Path, config: SnapshotConfig) -> None:
    """Check size and SHA-256 of each file that config.json names.

    Raises:
        SnapshotError: If a file is missing or differs; the message names it.
    """
    for name, digest in config.files.items():
        path = folder / name
        if not path.is_file():
            raise SnapshotError(f"The snapshot lacks {name}.")
        if not has_digest(path, digest):
            raise SnapshotError(
                f"The snapshot's {name} is damaged: its size or SHA-256 is not the one in {CONFIG_FILE}."
            )


def write_config(
    folder: Path,
    *,
    version: str,
    held_back_fold: int,
    input_config: InputConfig,
    members: Sequence[MemberConfig],
    admission: AdmissionConfig,
    prediction_set: PredictionSetConfig,
    agreement: AgreementConfig,
) -> SnapshotConfig:
    """Write a snapshot's config.json, with the digest of each file that the app loads, and read it back.

    Args:
        folder: Where the members' folders and the feature file already are.
        version: Version of the weights.
        held_back_fold: Fold of the committed split that no member was trained on.
        input_config: How a film becomes a backbone's input.
        members: The backbones.
        admission: Thresholds of admission.
        prediction_set: Thresholds of the prediction set.
        agreement: When the members are said to disagree.

    Raises:
        SnapshotError: If a file is missing or the parts contradict each other.
    """
    names = _required_files(members, admission)
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise SnapshotError(f"The snapshot lacks {', '.join(missing)}.")
    config = {
        "format": FORMAT,
        "version": version,
        "held_back_fold": held_back_fold,
        "class_names": list(CLASS_NAMES),
        "input": asdict(input_config),
        "members": [asdict(member) for member in members],
        "admission": asdict(admission),
        "prediction_set": asdict(prediction_set),
        "agreement": asdict(agreement),
        "files": {name: asdict(digest_of(folder / name)) for name in names},
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
    return SnapshotConfig.read(folder)


def digest_of(path: Path) -> FileDigest:
    """Return the size and SHA-256 of a file."""
    return FileDigest(path.stat().st_size, sha256_of(path))
