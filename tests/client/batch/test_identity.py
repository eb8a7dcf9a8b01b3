"""What a function is known by between runs."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client.batch.stub import Server
from flytekitplugins.inference.client.batch import batch
from flytekitplugins.inference.client.batch.identity import code_digest, incomparable

PROGRAM = """
    import functools
    from flytekitplugins.inference.client.batch.identity import code_digest

    held = {"anger", "joy", "fear", "calm"}

    def make(words):
        async def f(client, row, *, more=frozenset(held)):
            return row in {"yes", "no", "maybe", "never", ("a", "b")} or row in words or row in more
        return f

    print(code_digest(functools.partial(make(held), more={"x": held})))
"""


def holding(value: Any) -> Callable[..., Any]:
    async def ask(client: Any, row: Any) -> Any:
        return [row, value]

    return ask


def defaulting(value: Any) -> Callable[..., Any]:
    async def ask(client: Any, row: Any, prompt: Any = value, *, more: Any = value) -> Any:
        return [row, prompt, more]

    return ask


def partly(value: Any) -> Any:
    return functools.partial(defaulting(0), prompt=value)


def wrapping(value: Any) -> Callable[..., Any]:
    inner = holding(value)

    @functools.wraps(inner)
    async def ask(client: Any, row: Any) -> Any:
        return await inner(client, row)

    return ask


class Asker:
    def __init__(self, value: Any) -> None:
        self.value = value

    async def __call__(self, client: Any, row: Any) -> Any:
        return [row, self.value]

    async def ask(self, client: Any, row: Any) -> Any:
        return [row, self.value]


KINDS = [holding, defaulting, partly, wrapping, Asker, lambda value: Asker(value).ask]


def test_the_order_of_a_set_does_not_change_it() -> None:
    said = set()
    for seed in ("1", "2", "3"):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
        environ = {**os.environ, "PYTHONHASHSEED": seed}
        said.add(
            subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
        )
    assert len(said) == 1
    assert re.fullmatch("[0-9a-f]{16}\n", said.pop())


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "b"),
        (1, True),
        (["a", 1], ["a", 2]),
        ({"a": {1, 2}}, {"a": {1, 3}}),
        (Path("a"), Path("b")),
        (Asker(1), Asker(2)),
        (lambda row: row, lambda row: -row),
    ],
    ids=["texts", "types", "lists", "mappings", "paths", "objects", "functions"],
)
def test_what_it_holds_changes_it(make: Any, one: Any, other: Any) -> None:
    assert code_digest(make(one)) == code_digest(make(one))
    assert code_digest(make(one)) != code_digest(make(other))


def test_a_function_that_holds_itself_has_a_digest() -> None:
    def make() -> Any:
        async def ask(client: Any, row: Any) -> Any:
            return await ask(client, row)

        return ask

    assert code_digest(make()) == code_digest(make())


@pytest.mark.parametrize("make", KINDS)
def test_what_cannot_be_compared_is_named_and_never_taken_for_the_same(make: Any) -> None:
    function = make(threading.Lock())
    assert "of type lock" in incomparable(function)[0]
    assert code_digest(function) != code_digest(function)


def test_values_without_end_cannot_be_compared() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert incomparable(holding(deep))
    assert incomparable(holding(list(range(300_000))))


def test_a_rerun_with_another_prompt_asks_again(server: Server, tmp_path: Path) -> None:
    def run(prompt: str) -> Any:
        return batch(
            server.endpoint,
            ["a"],
            work=partly(prompt),
            output=tmp_path / "out.jsonl",
            progress=False,
        )

    assert run("one").resumed == 0
    assert run("one").resumed == 1
    (record,) = run("two")
    assert record["output"] == ["a", "two", 0]


def test_a_rerun_with_what_cannot_be_compared_says_so(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = threading.Lock()

    async def ask(client: Any, row: Any) -> Any:
        return lock.locked()

    for _ in range(2):
        assert batch(server.endpoint, ["a"], work=ask, output=tmp_path / "out.jsonl").resumed == 0
        said = capsys.readouterr().err
        assert "work= holds 'lock' (of type lock), which cannot be compared between runs" in said
