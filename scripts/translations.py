"""Keep the catalogues in step with the sentences of the code: pneumonet/locales/<tag>.po.

    python scripts/translations.py            say what each catalogue lacks, and what it has too much
    python scripts/translations.py --update   add new sentences, empty, and drop those that are said no more

A sentence is what stands in `said(...)` or `language(...)`, in the code and in the page's templates, and the titles and
notes of the page's examples.
"""

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment
from jinja2.ext import extract_from_ast

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pneumonet.language import LANGUAGES, LOCALES, SOURCE_TAG
from pneumonet.web.examples import FOLDER, INDEX_FILE

_NAMES: Final = ("said", "language", "say")


def messages() -> dict[str, list[str]]:
    """Return every sentence that can be said in another language, with the files where it stands."""
    found: dict[str, list[str]] = {}
    package, environment = ROOT / "pneumonet", Environment()
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.html"), FOLDER / INDEX_FILE]):
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            texts = list(_said_in(ast.parse(source)))
        elif path.suffix == ".html":
            # With values a call's message is the first of several; of one that names a constant there is none here.
            calls = (text for _, _, text in extract_from_ast(environment.parse(source), _NAMES))
            texts = [text for call in calls if (text := call[0] if isinstance(call, tuple) else call)]
        else:
            texts = [entry[key] for entry in json.loads(source) for key in ("title", "note")]
        for text in texts:
            places = found.setdefault(text, [])
            if (place := path.relative_to(ROOT).as_posix()) not in places:
                places.append(place)
    return found


def _said_in(tree: ast.AST) -> Iterator[str]:
    # By the tree: Babel's own extraction reads tokens, and sees nothing of what stands in an f-string.
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
            continue
        name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
        if name in _NAMES and isinstance(node.args[0].value, str):
            yield node.args[0].value


def catalogue(tag: str) -> Any:
    """Return a language's catalogue, an empty one where there is none."""
    path = LOCALES / f"{tag}.po"
    locale = tag.replace("-", "_")
    if not path.exists():
        return Catalog(locale=locale, fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=locale, abort_invalid=True)


def differences(tag: str) -> tuple[list[str], list[str]]:
    """Return the sentences that a catalogue lacks or has empty, and those that are said no more."""
    wanted, has = messages(), {m.id: m.string for m in catalogue(tag) if m.id}
    return [text for text in wanted if not has.get(text)], [text for text in has if text not in wanted]


def update(tag: str) -> None:
    """Write a catalogue anew: what it has of the sentences, and the rest empty."""
    old, has = catalogue(tag), {}
    for message in old:
        has[message.id] = message.string
    new = Catalog(locale=tag.replace("-", "_"), fuzzy=False)
    for text, places in messages().items():
        # Files without lines: a catalogue is not to change with every edit of the code.
        new.add(text, has.get(text, ""), locations=[(place, None) for place in places])  # type: ignore[misc]
    with (LOCALES / f"{tag}.po").open("wb") as file:
        write_po(file, new, width=120, omit_header=True)


def main() -> int:
    """Say or mend the differences; returns 1 where a catalogue is not whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    is_whole = True
    for tag in LANGUAGES:
        if tag == SOURCE_TAG:
            continue
        if arguments.update:
            update(tag)
        missing, needless = differences(tag)
        print(f"{tag}: {len(missing)} sentences missing, {len(needless)} needless")
        for text in (*missing, *needless) if len(missing) + len(needless) < 20 else ():
            print(f"  {text}")
        is_whole &= not missing and not needless
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
