"""Lines of containers."""

from __future__ import annotations

import io
import threading

import pytest

from flytekitplugins.inference.local.container_output import KEPT_LINES, LineSplitter, PodOutput


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a\nb\n"], ["a", "b"]),
        ([b"a", b"b", b"\nc"], ["ab", "c"]),
        ([b"a\r\n\n"], ["a", ""]),
        ([b"1%\r", b"50%\r", b"100%\nnext\n"], ["100%", "next"]),
        ([b"1%\r2%\r"], ["2%"]),
        ([b"caf\xc3", b"\xa9 \xff\xfe\n"], ["café \ufffd\ufffd"]),
        ([b"\x1b[31mred\x1b[0m \x00\x07bell\n"], ["red bell"]),
        ([b"tab\tstays\n"], ["tab\tstays"]),
        ([b""], []),
    ],
)
def test_bytes_become_lines(chunks: list[bytes], expected: list[str]) -> None:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert lines + splitter.flush() == expected


def test_an_endless_line_does_not_fill_the_memory() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(100) for line in splitter.feed(b"x" * 10_000)]
    assert lines
    assert all(len(line) < 5000 for line in lines)
    assert len(splitter._pending) < 100_000


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_carry_the_name_of_their_container() -> None:
    stream = io.StringIO()
    output = PodOutput(stream)
    output.write_line("a", "one")
    output.write_line("b", "two")
    assert stream.getvalue() == "[a] one\n[b] two\n"
    assert (output.tail("a", 5), output.tail("c", 5), output.tail("a", 0)) == (("one",), (), ())


def test_a_terminal_gets_colours_unless_they_are_not_wanted() -> None:
    coloured, plain = Terminal(), Terminal()
    PodOutput(coloured, {}).write_line("a", "x")
    PodOutput(plain, {"NO_COLOR": "1"}).write_line("a", "x")
    assert coloured.getvalue() == "\x1b[36m[a]\x1b[0m x\n"
    assert plain.getvalue() == "[a] x\n"


def test_only_the_last_lines_are_kept() -> None:
    output = PodOutput(None)
    for number in range(KEPT_LINES + 5):
        output.write_line("a", str(number))
    assert len(output.tail("a", KEPT_LINES * 2)) == KEPT_LINES
    assert output.tail("a", 2) == (str(KEPT_LINES + 3), str(KEPT_LINES + 4))


def test_a_closed_stream_does_no_harm() -> None:
    stream = io.StringIO()
    output = PodOutput(stream)
    stream.close()
    output.write_line("a", "one")
    output.write_line("a", "two")
    assert output.tail("a", 5) == ("one", "two")


def test_a_stream_that_cannot_write_every_letter() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    PodOutput(stream).write_line("a", "café")
    assert raw.getvalue() == b"[a] caf?\n"


def test_lines_of_several_threads_do_not_mix() -> None:
    stream = io.StringIO()
    output = PodOutput(stream)
    threads = [
        threading.Thread(
            target=lambda name=name: [output.write_line(name, name * 50) for _ in range(200)]
        )
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = stream.getvalue().splitlines()
    assert sorted(lines) == sorted([f"[{name}] {name * 50}" for name in "abcd"] * 200)
