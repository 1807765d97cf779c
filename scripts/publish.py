"""Publish a snapshot folder to a model repo on the Hub.

    python scripts/publish.py model_card org/name --dry-run
    HF_TOKEN=... python scripts/publish.py model_card org/name --members

It refuses a folder whose card or checks are incomplete, uploads in one commit, and tags the version.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pneumonet.errors import PneumoNetError
from pneumonet.hub import check_publishable, publish, publish_member
from pneumonet.snapshot import SnapshotConfig


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="snapshot folder: card, config.json, weights, metrics.json")
    parser.add_argument("repo_id", metavar="org/name")
    parser.add_argument("--tag", help="tag of the commit; default: v and the version in config.json")
    parser.add_argument("--private", action="store_true", help="make a new repo private")
    parser.add_argument("--message", help="title of the commit")
    parser.add_argument("--members", action="store_true", help="also publish each backbone as org/name-<member>")
    parser.add_argument("--dry-run", action="store_true", help="check the folder and list its files; upload nothing")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    folder, repo_id = arguments.folder, arguments.repo_id
    names = check_publishable(folder)
    print(f"{len(names)} files are fit to publish: {', '.join(names)}")
    if arguments.dry_run:
        return
    commit = publish(folder, repo_id, tag=arguments.tag, private=arguments.private, message=arguments.message)
    print(f"Published {repo_id} at commit {commit}")
    for member in SnapshotConfig.read(folder).members if arguments.members else ():
        publish_member(folder, repo_id, member.name, tag=arguments.tag, private=arguments.private)
        print(f"Published {repo_id}-{member.name}")
    print(f"PNEUMONET_MODEL={repo_id} PNEUMONET_REVISION={commit} make run")


def main() -> int:
    """Parse the arguments and run; return the exit code."""
    try:
        _run(_parser().parse_args())
    except PneumoNetError as error:
        print(error.told, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
