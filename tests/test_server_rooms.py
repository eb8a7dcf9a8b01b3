"""What a server of ours needs beside its folder: the author of a new one is told all of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import flytekitplugins.inference
from golden.cases import CASES, make
from test_installed import ANSWERED

PACKAGE = Path(flytekitplugins.inference.__file__).parent
PROJECT = PACKAGE.parent.parent
REGISTERED = dict(
    re.findall(
        r'(?m)^(\w+) = "(flytekitplugins\.inference\.[\w.]+:\w+)"$',
        (PROJECT / "pyproject.toml").read_text(encoding="utf-8"),
    )
)
"""Entry point → class, of the group of servers."""
README = (PROJECT / "README.md").read_text(encoding="utf-8")
IN_GOLDEN_PODS = {type(server).__name__ for case in CASES for server in make(case).servers.values()}
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/serve.py"))


def missing(room: str) -> list[str]:
    """Return what the server in a folder of the package still lacks, and where it belongs."""
    module, _, kind = REGISTERED.get(room, "").partition(":")
    if module != f"flytekitplugins.inference.{room}.serve":
        return [
            f'pyproject.toml: no entry point {room} = "flytekitplugins.inference.{room}.serve:…"'
        ]
    absent = {
        f"inference/__init__.py: {kind} is not exported": kind
        not in flytekitplugins.inference.__all__,
        f"docs/servers/{room}.md: no page": not (PROJECT / f"docs/servers/{room}.md").is_file(),
        f"README.md: no row of {kind} in the table of templates": not re.search(
            rf"(?m)^\| \[`{kind}`\]\(docs/servers/{room}\.md\) \|", README
        ),
        f"tests/golden/cases.py: no case with {kind}": kind not in IN_GOLDEN_PODS,
        f"tests/test_installed.py: ANSWERED has no {kind}": kind
        not in {make.__name__ for make, _ in ANSWERED},
    }
    return [what for what, is_absent in absent.items() if is_absent]


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_missing(room: str) -> None:
    assert missing(room) == []


def test_no_entry_point_is_left_over() -> None:
    assert sorted(REGISTERED) == ROOMS


def test_the_author_of_a_new_one_is_told_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing("acme") == [
        'pyproject.toml: no entry point acme = "flytekitplugins.inference.acme.serve:…"'
    ]
    monkeypatch.setitem(REGISTERED, "acme", "flytekitplugins.inference.acme.serve:Acme")
    assert [what.partition(":")[0] for what in missing("acme")] == [
        "inference/__init__.py",
        "docs/servers/acme.md",
        "README.md",
        "tests/golden/cases.py",
        "tests/test_installed.py",
    ]
