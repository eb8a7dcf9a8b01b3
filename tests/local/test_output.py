"""Lines of containers."""

from __future__ import annotations

import io
import tempfile
import threading
from pathlib import Path

import pytest

from flytekitplugins.inference.errors import ConfigError
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


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let new log files be made here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def run_through(verbosity: str | None) -> str:
    """Return what a pod writes: a start, quiet and loud lines, and a failure."""
    stream = io.StringIO()
    environ = {} if verbosity is None else {"INFERENCE_LOCAL_LOG": verbosity}
    output = PodOutput(stream, environ, name="llm")
    output.write_line("server", "loading")
    output.write_line("pod", "ready after 1 s")
    output.end_start()
    output.write_line("server", "GET /health 200")
    output.write_line("server", "WARNING: cache is full")
    output.write_line("server", "last words")
    output.show_before_failure("server")
    output.write_line("pod", "server: exited with 1")
    output.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("verbosity", "shown", "hidden"),
    [
        (None, ["loading", "ready after 1 s", "WARNING: cache", "exited with 1"], []),
        ("start", ["loading", "WARNING: cache", "last words", "exited with 1"], []),
        ("ALL", ["loading", "GET /health 200", "last words", "exited with 1"], ["further lines"]),
        ("none", [], ["loading", "WARNING", "last words", "exited with 1"]),
    ],
)
def test_after_the_start_only_warnings_and_what_precedes_a_failure_are_written(
    logs: Path, verbosity: str | None, shown: list[str], hidden: list[str]
) -> None:
    written = run_through(verbosity)
    assert all(text in written for text in shown)
    assert not any(text in written for text in hidden)
    # the file has every line, and each once
    (file,) = logs.iterdir()
    kept = file.read_text()
    assert kept.count("GET /health 200") == kept.count("last words") == 1
    assert "[server] loading\n" in kept


def test_the_file_is_named_once_a_line_is_left_out(logs: Path) -> None:
    written = run_through(None)
    (file,) = logs.iterdir()
    assert f"further lines go to {file}; INFERENCE_LOCAL_LOG=all shows them" in written
    assert file.name.startswith("inference-llm-")


def test_lines_before_a_failure_come_once_and_are_few(logs: Path) -> None:
    stream = io.StringIO()
    output = PodOutput(stream, {}, name="llm")
    output.end_start()
    for number in range(100):
        output.write_line("server", f"line {number}")
    assert "line" not in stream.getvalue().partition("shows them")[2]
    output.show_before_failure("server")
    output.show_before_failure("server")
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("[server]")]
    assert lines == [f"[server] line {number}" for number in range(80, 100)]
    output.close()


@pytest.mark.parametrize(
    ("line", "is_warning"),
    [
        ("WARNING 11-26 config.py: x", True),
        ("[2026] ERROR in loop", True),
        ("E1126 FATAL: y", True),
        ("Traceback (most recent call last):", True),
        ("torch.OutOfMemoryError: CUDA out of memory", True),
        ("ValueError: z", True),
        ("INFO: 127.0.0.1 - GET /v1/models 200 OK", False),
        ("0 errors so far", False),
    ],
)
def test_what_counts_as_a_warning(line: str, is_warning: bool) -> None:
    stream = io.StringIO()
    output = PodOutput(stream, {})
    output.end_start()
    output.write_line("server", line)
    assert (line in stream.getvalue()) is is_warning


def test_a_wrong_setting_says_what_there_is(logs: Path) -> None:
    with pytest.raises(ConfigError, match="'loud' is none of all, start, none"):
        PodOutput(io.StringIO(), {"INFERENCE_LOCAL_LOG": "loud"}, name="llm")
    assert list(logs.iterdir()) == []
