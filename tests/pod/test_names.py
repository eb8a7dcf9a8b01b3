"""The rules for names, ports and paths."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flytekitplugins.inference.pod.names import (
    env_name_problem,
    label_problem,
    path_problem,
    port_problem,
    subdomain_problem,
)

GOOD: list[tuple[Callable[[object], str | None], list[object]]] = [
    (label_problem, ["a", "model-server", "0", "a" * 63]),
    (subdomain_problem, ["hugging-face", "a.b-c.d", "a" * 253]),
    (env_name_problem, ["HF_TOKEN", "_FSEC_A", "MY-GRP.KEY", "a", "-a"]),
    (port_problem, [1, 8000, 65535]),
    (path_problem, ["/shared", "/a/b/", "/dev/shm"]),
]
BAD: list[tuple[Callable[[object], str | None], list[object]]] = [
    (label_problem, ["", "A", "-a", "a-", "a.b", "a_b", "a" * 64, "a\n", None, 3]),
    (subdomain_problem, ["", "my_group", "a..b", ".a", "a" * 254, None]),
    (env_name_problem, ["", "1A", "A B", "A=B", "Ä", ".", "..", "..a", None]),
    (port_problem, [0, -1, 65536, "8000", 80.0, True, None]),
    (path_problem, ["", "shared", "/a:b", "/a/../b", "/", "//", "/a\0b", None]),
]


@pytest.mark.parametrize(
    ("rule", "value"), [(rule, value) for rule, values in GOOD for value in values]
)
def test_good(rule: Callable[[object], str | None], value: object) -> None:
    assert rule(value) is None


@pytest.mark.parametrize(
    ("rule", "value"), [(rule, value) for rule, values in BAD for value in values]
)
def test_bad(rule: Callable[[object], str | None], value: object) -> None:
    problem = rule(value)
    assert problem is not None
    assert repr(value) in problem
