"""PneumoNet's side of the tests, in a process of its own: huggingface_hub reads its environment when imported.

`python -m tests.hub.client` answers each line of JSON on its standard input with one on its output.
"""

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Client:
    """A running process; one of them serves many tests, as an import costs a second and a cache folder nothing."""

    def __init__(self, endpoint: str, home: Path, **environment: str) -> None:
        clean = {
            "PATH": os.environ["PATH"], "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "2", "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "OMP_NUM_THREADS": "1", **environment,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub.client"],
            cwd=ROOT, env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(self, function: str, *arguments: object, **keywords: object) -> dict[str, Any]:
        """Call a function of `pneumonet.hub`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"function": function, "arguments": arguments, "keywords": keywords}
        self._process.stdin.write(json.dumps(request, default=_packed) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def open(self, model: str | Path, revision: str | None = None, **keywords: object) -> dict[str, Any]:
        return self.call("open_snapshot", model, revision, **keywords)

    def load(self, model: str, revision: str | None = None) -> dict[str, Any]:
        """Load the model of a snapshot, as the service does when it starts; return the snapshot that answers."""
        return self.call("from_pretrained", model, revision=revision, device="cpu", engine="torch")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def _packed(path: object) -> dict[str, str]:
    return {"path": str(path)}


def _unpacked(data: dict[str, Any]) -> object:
    return Path(data["path"]) if set(data) == {"path"} else data


def _called(function: str, *arguments: Any, **keywords: Any) -> object:
    if function == "from_pretrained":
        # Torch is loaded for this alone: the Hub's part does without.
        from pneumonet.model import PneumoNet

        return PneumoNet.from_pretrained(*arguments, **keywords).snapshot
    from pneumonet import hub

    return getattr(hub, function)(*arguments, **keywords)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from pneumonet.errors import PneumoNetError

    started = time.monotonic()
    try:
        result = _called(request["function"], *request["arguments"], **request["keywords"])
    except PneumoNetError as error:
        answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint, "code": error.code}
        answer["cause"] = type(error.__cause__).__name__
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    else:
        answer = {"result": result} if isinstance(result, str | tuple) else dict(vars(result))
        if "config" in answer:
            answer["config"] = answer["config"].fingerprint
    return {**answer, "seconds": time.monotonic() - started, "torch": "torch" in sys.modules}


def main() -> None:
    """Answer requests until the input ends."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    for line in sys.stdin:
        answer = _answer(json.loads(line, object_hook=_unpacked))
        print(json.dumps({**answer, "log": list(lines)}, default=str), flush=True)
        lines.clear()


if __name__ == "__main__":
    main()
