"""Create a Hugging Face Space from this clone, or bring it up to date.

    python scripts/deploy_space.py org/space --model org/name --revision v0.2.0 --dry-run
    HF_TOKEN=... python scripts/deploy_space.py org/space --model org/name --revision v0.2.0

Only what is committed is deployed, in one commit, and the model is pinned to a full commit. Without --model the
clone's own snapshot goes along.
"""

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pneumonet.errors import PneumoNetError
from pneumonet.hub import check_deployable, deploy_space


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo_id", metavar="org/space")
    parser.add_argument("--model", metavar="org/name", help="model repo to serve; default: model_card/ of this clone")
    parser.add_argument("--revision", help="branch, tag or commit of the model repo; default: its default branch")
    parser.add_argument("--private", action="store_true", help="make a new Space private")
    parser.add_argument("--replace", action="store_true", help="take over a Space that was not deployed from here")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="check the clone, list its files, ask the Hub nothing")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    names = check_deployable(arguments.root, arguments.model)
    print(f"{len(names)} files and a README are fit to deploy: {', '.join(names)}")
    if arguments.dry_run:
        return
    space = deploy_space(
        arguments.root,
        arguments.repo_id,
        model=arguments.model,
        revision=arguments.revision,
        private=arguments.private,
        replace=arguments.replace,
    )
    print(f"{space.repo_id} {'is now' if space.is_changed else 'was already'} at commit {space.commit}")
    if space.model_commit:
        print(f"PNEUMONET_MODEL={arguments.model} PNEUMONET_REVISION={space.model_commit}")


def main() -> int:
    """Parse the arguments and run; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.revision and not arguments.model:
        parser.error("--revision is of a model repo: name it by --model.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        _run(arguments)
    except PneumoNetError as error:
        print(error.told, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
