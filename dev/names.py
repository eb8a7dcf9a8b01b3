"""Refuses names that stand for two things: a class or a module that the package has twice.

    .venv/bin/python -m dev.names

Prints both places of each twin and ends with 1 when there is one. A reader who meets `Engine`
should not have to ask which, and a search for a file should find one.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "plugins/flytekitplugins-inference/flytekitplugins/inference"
FILES = frozenset({"__init__.py", "__main__.py", "serve.py", "options.py"})
"""The same name says that they are the same thing of another: of a server, or what `-m` runs."""
CLASSES: Mapping[str, str] = {
    "ServerError": "client/chat.py",
    "ServerNotReadyError": "client/chat.py",
    "ServerExitedError": "client/chat.py",
}
"""Classes that may stand in this file as well. The errors of an OpenAI client extend those of
`errors.py` and OpenAI's own, and users and logs know them by the name that they share."""

Twins = dict[str, list[str]]


def module_twins(package: Path) -> Twins:
    """Return the places of each module whose file's name stands twice in `package`."""
    places: Twins = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        if path.name not in FILES:
            places[path.name].append(str(path.relative_to(package)))
    return _repeated(places)


def class_twins(package: Path) -> Twins:
    """Return the places of each class, nested ones too, whose name stands twice in `package`."""
    places: Twins = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        file = str(path.relative_to(package))
        for name, line in _classes(path):
            if CLASSES.get(name) != file:
                places[name].append(f"{file}:{line}")
    return _repeated(places)


def _classes(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ClassDef):
            yield node.name, node.lineno


def _repeated(places: Twins) -> Twins:
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def main() -> int:
    """Print the twins; return 1 when there are any."""
    twins = {**class_twins(PACKAGE), **module_twins(PACKAGE)}
    for name, places in twins.items():
        print(f"{name} stands {len(places)} times: {', '.join(places)}")
    if twins:
        print("Rename all but one of each, the most public, to another noun of the field.")
    return 1 if twins else 0


if __name__ == "__main__":
    sys.exit(main())
