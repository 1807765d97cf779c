"""What makes Gradio's import take half as long."""

import contextlib
import gc
import inspect
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def imported_at_start() -> Iterator[None]:
    """Import what a server needs; for its start only, as it counts on all that is imported staying to the end.

    Garbage is not collected meanwhile, and what is there afterwards is never looked through again (`gc.freeze`).

    Gradio looks after no type stubs: `gradio.component_meta` reads, parses and compares the `.pyi` file beside the
    module of every component, at every import, and writes it where it differs. Editors read them; nothing that runs
    does. It leaves out a class for which `inspect.getfile` raises OSError, as for one that no file holds.
    """
    getfile = inspect.getfile

    def of_no_class_of_gradio(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no type stubs")
        return getfile(thing)

    inspect.getfile = of_no_class_of_gradio  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        inspect.getfile = getfile
        gc.freeze()
        gc.enable()
