"""The import of the server, at which Gradio would write type stubs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# In a process of its own, as Gradio is imported but once. The address is nobody's (RFC 5737), so that the server ends.
_SCRIPT = """
import ast
import gc
import sys

parsed = []
segment = ast.get_source_segment
ast.get_source_segment = lambda source, node, **options: parsed.append(node.name) or segment(source, node, **options)

{main}
assert "gradio.components.textbox" in sys.modules
assert parsed == [], parsed
assert gc.isenabled() and gc.get_freeze_count() > 100_000

import gradio

class Own(gradio.Textbox):
    pass

assert "Own" in parsed
"""


@pytest.mark.parametrize(
    "main",
    ["import app; assert app.main() == 1", "from pneumonet import cli; assert cli.main(['serve']) == 1"],
    ids=["app.py", "python -m pneumonet serve"],
)
def test_a_start_has_gradio_parse_and_write_no_type_stubs(tmp_path: Path, main: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT.replace("{main}", main))
    environment = os.environ | {"PYTHONPATH": str(_ROOT), "PNEUMONET_HOST": "192.0.2.1"}

    process = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )

    assert process.returncode == 0, process.stderr
    assert "cannot listen" in process.stderr
    # Its own rule is in force again afterwards: without this, nothing above would show anything.
    assert script.with_suffix(".pyi").exists()
