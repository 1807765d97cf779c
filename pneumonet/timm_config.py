"""A member's own config.json, the one that timm reads, held to the snapshot's."""

import json
from pathlib import Path
from typing import Any, Final

from pneumonet.errors import SnapshotError
from pneumonet.snapshot import CONFIG_FILE, MEMBER_CONFIG_FILE, InputConfig, MemberConfig, SnapshotConfig
from pneumonet.taxonomy import CLASS_NAMES

_SHOWN_CHARACTERS: Final = 100


def check_timm_configs(folder: Path, config: SnapshotConfig) -> None:
    """Check that each member's own config.json says of it what the snapshot's says.

    The app computes by the snapshot's alone; but a member's was written where the member was trained, and classes in
    another order, or another input, may show only there.

    Not defended: a head whose rows were permuted under right labels. No label tells it, and a snapshot carries no film
    whose probabilities are known.

    Args:
        folder: The snapshot, its files already verified.
        config: Its config.

    Raises:
        SnapshotError: If one cannot be read or says something else; the message names it.
    """
    for member in config.members:
        name = f"{member.name}/{MEMBER_CONFIG_FILE}"
        found = _read(folder, name)
        for key, expected in _expected(member, config.input).items():
            if (got := _at(found, key)) != expected:
                raise SnapshotError(
                    f"The snapshot's {name} contradicts its {CONFIG_FILE}: expected {key} {expected!r}, "
                    f"got {repr(got)[:_SHOWN_CHARACTERS]}."
                )


def _read(folder: Path, name: str) -> Any:
    try:
        return json.loads((folder / name).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SnapshotError(f"The snapshot's {name} cannot be understood: it is no JSON.") from error


def _expected(member: MemberConfig, input_config: InputConfig) -> dict[str, Any]:
    return {
        "architecture": member.architecture,
        "num_classes": len(CLASS_NAMES),
        "label_names": list(CLASS_NAMES),
        "pretrained_cfg.num_classes": len(CLASS_NAMES),
        "pretrained_cfg.input_size": [3, input_config.size, input_config.size],
        "pretrained_cfg.mean": list(input_config.mean),
        "pretrained_cfg.std": list(input_config.std),
    }


def _at(data: Any, key: str) -> Any:
    """Return what lies at a dotted key, None where nothing does."""
    for part in key.split("."):
        data = data.get(part) if isinstance(data, dict) else None
    return data
