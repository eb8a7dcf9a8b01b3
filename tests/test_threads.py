"""How to wait for a thread: by an event that it sets, not by `Thread.join` or `is_alive`.

On Python 3.10 to 3.12 a signal handler that raises out of `join` marks the thread as ended: whoever
waits again, or asks whether it is alive, takes it for done while it runs.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import flytekitplugins.inference

ROOT = Path(flytekitplugins.inference.__file__).parent
OF_TEXTS = {"os.pathsep", "os.path", "request.url"}
"""What else has a `join`: texts, paths, httpx's addresses."""


def waits(source: str) -> list[str]:
    """Return the calls that may be of `Thread.join` or `Thread.is_alive`."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    methods = [
        call
        for call in calls
        if isinstance(call, ast.Attribute) and call.attr in ("join", "is_alive")
    ]
    return [
        ast.unparse(method)
        for method in methods
        if not isinstance(method.value, (ast.Constant, ast.JoinedStr))
        and ast.unparse(method.value) not in OF_TEXTS
    ]


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_thread_is_joined(path: Path) -> None:
    assert waits(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("thread.join()", ["thread.join"]),
        ("self._reader.join(1.0)", ["self._reader.join"]),
        ("while thread.is_alive(): pass", ["thread.is_alive"]),
        ("', '.join(words); os.pathsep.join(words); os.path.join(a, b)", []),
    ],
)
def test_what_is_found(source: str, expected: list[str]) -> None:
    assert waits(source) == expected
