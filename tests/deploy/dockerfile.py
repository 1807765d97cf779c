"""What deploy/Dockerfile says, as far as the tests hold it to something."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"


@dataclass
class Stage:
    """One stage: its base, its instructions in order, and the environment that they leave."""

    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, kind: str) -> list[str]:
        return [text for name, text in self.instructions if name == kind]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.partition("=") for text in self.all("ENV") for pair in shlex.split(text)]
        return {name: value for name, _, value in pairs}

    @property
    def copied(self) -> dict[str, str]:
        """What is copied from the repository, and to where."""
        copies = [text.split() for text in self.all("COPY") if not text.startswith("--from")]
        return {source: target for *sources, target in copies for source in sources}

    def command(self, kind: str) -> list[str]:
        """The words of the last RUN, CMD or HEALTHCHECK in exec form."""
        words: list[str] = json.loads(re.sub(r"^.*?(?=\[)", "", self.all(kind)[-1]))
        return words


def stages() -> dict[str, Stage]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "FROM":
            base, name = rest.split(" AS ")
            found[name] = stage = Stage(base)
        elif line.strip():
            stage.instructions.append((kind, rest))
    return found
