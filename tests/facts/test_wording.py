"""Times and quotations in messages."""

from __future__ import annotations

import pytest

from flytekitplugins.inference.facts.wording import duration, excerpt


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (4e-5, "40 µs"),
        (0.00099, "990 µs"),
        (0.0009996, "1.0 ms"),
        (0.0042, "4.2 ms"),
        (0.0996, "100 ms"),
        (0.9996, "1.0 s"),
        (1, "1 s"),
        (3.0, "3 s"),
        (3.14, "3.1 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (245, "4 min 5 s"),
        (3600, "1 h"),
        (7380, "2 h 3 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "nothing"),
        (b" \n\t", "nothing"),
        ("two\n  lines", "'two lines'"),
        (b"\xff\x00\x1b[31m", r"'\ufffd\x00\x1b[31m'".replace(r"\ufffd", "\ufffd")),
        ("x" * 5000, f"'{'x' * 200}…'"),
        (b"y" * 200, f"'{'y' * 200}'"),
    ],
)
def test_excerpts(text: bytes | str, quoted: str) -> None:
    assert excerpt(text) == quoted


def test_an_excerpt_of_another_length() -> None:
    assert excerpt("abcdef", limit=3) == "'abc…'"
