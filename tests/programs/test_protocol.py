"""How programs end: the termination message and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flytekitplugins.inference import errors
from flytekitplugins.inference.errors import ConfigError, InferenceError
from flytekitplugins.inference.programs.main import run
from flytekitplugins.inference.programs.protocol import (
    MAX_TERMINATION_MESSAGE_BYTES,
    termination_message,
)
from termination import failure


@pytest.mark.parametrize("text", ["ascii ", "grüß ", "\U0001f600", '"\\\n', "\0", "\udcff"])
@pytest.mark.parametrize("hint", ["", "Do this.", "grüß " * 5000])
@pytest.mark.parametrize("repeat", [1, 600, 680, 4000, 100_000])
def test_a_termination_message_is_as_long_as_it_may_be(text: str, hint: str, repeat: int) -> None:
    message = text * repeat
    written = termination_message("p", ConfigError(message, hint=hint))
    assert len(written.encode()) <= MAX_TERMINATION_MESSAGE_BYTES
    sentence, line = written.split("\n")
    assert sentence.startswith("p failed: ")
    fields = json.loads(line)
    if fields["message"] != message:
        assert message.startswith(fields["message"].removesuffix("…"))
        assert fields["message"].endswith("…")
        assert (
            len(written.encode()) > MAX_TERMINATION_MESSAGE_BYTES - 12
        )  # one more character would not fit
    if fields["hint"] != hint:
        assert hint.startswith(fields["hint"].removesuffix("…"))
        assert len(fields["hint"]) > 300


def test_a_defect_ends_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INFERENCE_TERMINATION_LOG", str(tmp_path / "log"))
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def broken(argv: object, environ: object) -> int:
        raise ZeroDivisionError("x" * 10_000)

    assert run("p", broken, [], {}) == 70
    fields = json.loads((tmp_path / "log").read_text().splitlines()[-1])
    assert (fields["error"], fields["message"][:3]) == ("ZeroDivisionError", "xxx")
    assert len(fields["message"]) > 2500
    assert "defect" in fields["hint"]
    assert "Traceback" in capsys.readouterr().err


UNDER_FLYTE: dict[str, int] = {
    # another attempt cannot mend these, or the user has to say whether it may
    "ConfigError": 247,
    "ArgumentError": 247,
    "QuantityError": 247,
    "SpecConflictError": 247,
    "UnsupportedError": 247,
    "MissingDependencyError": 247,
    "UsageError": 247,
    "SourceNotFoundError": 247,
    "RevisionNotFoundError": 247,
    "InvalidSourceError": 247,
    "SourceForbiddenError": 247,
    "GatedModelError": 247,
    "ServerError": 247,
    "ServerNotReadyError": 247,
    "ServerExitedError": 247,
    # these may pass
    "InferenceError": 70,
    "FetchError": 74,
    "DestinationError": 74,
    "IntegrityError": 74,
    "SourceUnavailableError": 69,
    "BatchFailedError": 65,
}


def test_the_table_has_every_error() -> None:
    assert UNDER_FLYTE.keys() == set(errors.__all__)


@pytest.mark.parametrize("name", UNDER_FLYTE)
@pytest.mark.parametrize("is_under_flyte", [True, False])
def test_under_flyte_what_no_attempt_can_mend_is_a_user_error(
    name: str, is_under_flyte: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: InferenceError = getattr(errors, name)("wrong", hint="Mend it.")

    def failing(argv: object, environ: object) -> int:
        raise error

    monkeypatch.setenv("INFERENCE_TERMINATION_LOG", str(tmp_path / "termination-log"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    environ = {"FLYTE_INTERNAL_EXECUTION_ID": "f1b2c3"} if is_under_flyte else {}
    assert run("p", failing, [], environ) == (
        UNDER_FLYTE[name] if is_under_flyte else error.exit_code
    )
    fields = failure(tmp_path)
    assert fields["exit_code"] == error.exit_code
    assert (fields["error"], fields["message"], fields["hint"]) == (name, "wrong", "Mend it.")


@pytest.mark.parametrize(("defect", "code"), [(ZeroDivisionError, 70), (ModuleNotFoundError, 247)])
def test_under_flyte_a_defect_keeps_its_code_and_a_missing_module_does_not(
    defect: type[Exception], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(argv: object, environ: object) -> int:
        raise defect("no")

    monkeypatch.setenv("INFERENCE_TERMINATION_LOG", str(tmp_path / "termination-log"))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert run("p", failing, [], {"FLYTE_INTERNAL_EXECUTION_ID": "f1b2c3"}) == code


def test_under_flyte_a_program_ends_with_the_code_of_a_user_error(tmp_path: Path) -> None:
    body = 'raise test_protocol.ConfigError("wrong")'
    done = in_a_program(body, tmp_path, FLYTE_INTERNAL_EXECUTION_ID="f1b2c3")
    assert done.returncode == 247, done.stderr
    assert done.stderr.splitlines()[-2] == "p failed: wrong"


class SignallingError(ConfigError):
    """An error of which the process is told to end while the error is being told."""

    def __init__(self, number: int) -> None:
        super().__init__("told")
        self.number = number

    def __getattribute__(self, name: str) -> object:
        if name == "hint":
            os.kill(os.getpid(), object.__getattribute__(self, "number"))
        return super().__getattribute__(name)


class SignallingDefectError(Exception):
    def __str__(self) -> str:
        os.kill(os.getpid(), self.args[0])
        return "told"


class SignallingAbsenceError(SignallingDefectError, ModuleNotFoundError):
    pass


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("error", [SignallingError, SignallingDefectError, SignallingAbsenceError])
def test_a_signal_while_the_end_is_told_ends_the_program(
    error: type[Exception], number: int, code: int, tmp_path: Path
) -> None:
    done = in_a_program(f"raise test_protocol.{error.__name__}({int(number)})", tmp_path)
    assert done.returncode == code, done.stderr
    assert "Terminated" not in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_the_second_sigterm_ends_a_program_at_once(tmp_path: Path) -> None:
    body = """
try:
    os.kill(os.getpid(), signal.SIGTERM)
    print("went on")
finally:
    print("in order")
    os.kill(os.getpid(), signal.SIGTERM)
    print("went on")
"""
    done = in_a_program(body, tmp_path)
    assert (done.returncode, done.stdout) == (143, "in order\n"), done.stderr


def in_a_program(body: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `body` as a program, in a process of its own."""
    code = f"""
import os, signal, sys
sys.stdout.reconfigure(line_buffering=True)
import test_protocol
from flytekitplugins.inference.programs.main import start

def main(argv, environ):
{textwrap.indent(body, "    ")}
    return 0

start("p", main)
"""
    environ = {**os.environ, "INFERENCE_TERMINATION_LOG": str(directory / "log"), **environ}
    environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )


def test_a_closed_stderr_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "inputs.pb").write_bytes(b"")
    program = 'exec 2>&-; exec "$@"'
    arguments = ["inputs.pb", "--output", "out.json", "--directory", "files"]
    done = subprocess.run(
        [
            "sh",
            "-c",
            program,
            "sh",
            sys.executable,
            "-m",
            "flytekitplugins.inference.programs.download_inputs",
            *arguments,
        ],
        check=False,
        cwd=tmp_path,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "out.json").read_text() == "{}\n"
