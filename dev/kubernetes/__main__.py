"""The commands of `dev/cluster`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import instance
from .files import ClusterError


def main() -> int:
    """Run one command; return 1 when it cannot do its work."""
    options = _parser().parse_args()
    try:
        return _run(options)
    except ClusterError as error:
        print(f"cluster: error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "up":
        instance.up(_say)
    elif options.command == "down":
        instance.down(_say)
    elif options.command == "status":
        is_well, lines = instance.status()
        for line in lines:
            _say(line)
        return 0 if is_well else 1
    elif options.command == "load":
        instance.load(options.images, _say)
    elif options.command == "kubeconfig":
        print(instance.require_kubeconfig())
    else:
        instance.use(options.context, _say)
    return 0


def _say(text: str) -> None:
    print(f"cluster: {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dev/cluster",
        description="A real Kubernetes of one node on this machine, for the tests in "
        "tests/cluster.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="build what is missing (minutes, once) and start it (seconds)")
    commands.add_parser("down", help="end it, and remove everything that it left")
    commands.add_parser("status", help="say what runs; exit code 1 unless all of it does")
    load = commands.add_parser("load", help="bring images to the node")
    load.add_argument("images", nargs="+", type=Path, metavar="IMAGE.tar", help="of `docker save`")
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    use = commands.add_parser("use", help="run the tests on a cluster that you have")
    use.add_argument("context", metavar="CONTEXT", help="the name of a context of your kubeconfig")
    return parser


if __name__ == "__main__":
    sys.exit(main())
