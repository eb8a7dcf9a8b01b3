"""The server gate: waits until a model server is ready, and says why when it will not be.

    python -m flytekitplugins.inference.programs.wait_for_server http://localhost:8000/health
    --timeout 600

runs as a regular init container behind the server. It ends with 0 when the server is ready, or with
an error that ends the pod: when the budget is over, or earlier when it is sure. Without an address
it waits for the model alone, in front of a server that cannot. With `--preflight` it checks instead
what must hold before anything starts.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import argparse
import contextlib
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import (
    DestinationError,
    InferenceError,
    ServerExitedError,
    ServerNotReadyError,
    UsageError,
)
from ..facts.readiness import HEALTH_SECONDS
from .disk import write_json
from .main import Terminated, run
from .preflight import combined, token, variable_problems
from .protocol import START_VARIABLE
from .server.loader_watch import LoaderWatch
from .server.server_probe import Api, ServerProbe, server_address
from .server.start_report import report, start_phases, table
from .start_budget import BudgetSpent, start_budget, telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..facts.address import Address
    from .server.server_probe import ProbeAnswer

PROGRAM = "wait_for_server"
MIN_REQUEST_SECONDS = 1.0
"""The last question, too, has time for an answer: better a second late than without one to tell."""
SPARE_SECONDS = 2.0
"""So long after the budget the last question and its answer are over."""
MAX_CLOSINGS = 3
"""How often the port may close after it was open: some servers look for a free port, or start again
once."""
SERVER_HINT = (
    "Read the log of model-server. If it was still loading, raise startup_timeout; if it ended, "
    "look at its exit code "
    "(137: memory limit) and its arguments (host and port)."
)
FIRST_PROGRESS_SECONDS = 3.0
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What the command line says."""

    address: Address | None
    """The server's; without one only the model is waited for."""
    timeout_seconds: float
    interval_seconds: float
    wanted: tuple[str, ...]
    """The models that the server must have."""
    api: Api
    models: Path | None
    inputs: Path | None
    report: Path | None
    variables: tuple[str, ...]
    token_variable: str


class Gate:
    """One run of the program.

    Args:
        config: What to wait for.
        environ: Environment variables, of which some are required; one may tell when the whole
            start began.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self._config, self._environ = config, environ
        budget = start_budget(environ)
        self._before = budget.spent if budget else 0.0
        """Seconds that were over when the gate began."""
        self._timeout = (
            min(config.timeout_seconds, budget.seconds) if budget else config.timeout_seconds
        )
        self._entered = time.time()
        self._started = time.monotonic() - self._before
        self._next_progress = time.monotonic() + FIRST_PROGRESS_SECONDS
        self._loader = LoaderWatch(config.models) if config.models else None
        self._answer: ProbeAnswer | None = None
        self._first_answer: ProbeAnswer | None = None
        self._is_open = False
        self._was_open = False
        self._closings = 0

    def run(self) -> None:
        """Wait until the server is ready, or the model where there is no address.

        Raises:
            ServerNotReadyError: It is not within the budget.
            ServerExitedError: It ends again and again.
            InferenceError: A variable is missing, or the loader failed for good.
        """
        outcome = "ready"
        try:
            self._wait()
        except BudgetSpent:
            outcome = ServerNotReadyError.__name__
            raise
        except (InferenceError, Terminated) as error:
            outcome = type(error).__name__
            raise
        finally:
            if self._config.address:
                self._report(outcome)

    def _wait(self) -> None:
        problems = variable_problems(self._config.variables, self._environ)
        if problems:
            raise combined(problems)
        with telling(lambda: f"Last: {self._last()}."):
            if self._config.address:
                self._wait_for_server(self._config.address)
            elif self._loader:
                self._wait_for_model(self._loader)
        _say(f"ready seconds={self._spent():.1f}")

    def _wait_for_model(self, loader: LoaderWatch) -> None:
        while not loader.is_ready:
            self._tick()
            if self._left() <= 0:
                raise ServerNotReadyError(
                    f"The model was not there {self._when()}. {loader.state}", hint=loader.hint
                )
            self._pause(min(self._config.interval_seconds, self._left()))

    def _wait_for_server(self, address: Address) -> None:
        config = self._config
        key = token(config.token_variable, self._environ)
        probes = [
            ServerProbe(address, model=name, api=config.api, token=key, tick=self._tick)
            for name in config.wanted or ("",)
        ]
        while True:
            self._tick()
            answer = self._note(probes[0].ask_readiness(self._request_seconds()))
            for probe in probes:
                if answer.is_ready and probe.asks_for_model:
                    answer = self._note(probe.ask_model(self._request_seconds()))
                    self._first_answer = answer if answer.is_ready else None
            if answer.is_ready:
                return
            if self._left() <= 0:
                raise self._not_ready(answer)
            self._pause(min(config.interval_seconds, self._left()))

    def _spent(self) -> float:
        return time.monotonic() - self._started

    def _left(self) -> float:
        return self._timeout - self._spent()

    def _when(self) -> str:
        before = (
            f", {self._before:.0f} s of which were over when the gate began"
            if self._before >= 1
            else ""
        )
        return f"after {self._spent():.0f} s{before}"

    def _last(self) -> str:
        return f"{self._answer.asked} {self._answer.text}" if self._answer else "no answer yet"

    def _request_seconds(self) -> float:
        return min(max(self._left(), MIN_REQUEST_SECONDS), HEALTH_SECONDS)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))
            self._tick()

    def _note(self, answer: ProbeAnswer) -> ProbeAnswer:
        """Remember an answer, and count how often the port closed.

        Raises:
            ServerExitedError: Too often.
        """
        self._answer = answer
        if answer.is_open:
            self._is_open = self._was_open = True
        elif answer.is_open is False and self._is_open:
            self._is_open = False
            self._closings += 1
            if self._closings >= MAX_CLOSINGS:
                raise ServerExitedError(
                    "The model server starts and ends again: the server's port opened and closed "
                    f"{self._closings} "
                    f"times in {self._spent():.0f} s. {answer.asked} {answer.text}.",
                    hint="The log of model-server tells why it ends; exit code 137 means that its "
                    "memory limit is low.",
                )
        return answer

    def _tick(self) -> None:
        """Look at the loader, and say now and then what is waited for."""
        if self._loader:
            self._loader.check()
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + PROGRESS_SECONDS
            last = self._last() if self._config.address else "the model is not there yet"
            _say(f"waiting seconds={self._spent():.0f} budget={self._timeout:g} last: {last}")

    def _not_ready(self, answer: ProbeAnswer) -> ServerNotReadyError:
        parts = [
            f"The model server was not ready {self._when()}.",
            f"{answer.asked} {answer.text}.",
        ]
        if self._closings:
            parts.append(f"The server's port opened and closed {self._closings} times.")
        elif not self._was_open:
            parts.append("Its port never opened.")
        if self._loader and self._loader.state:
            parts.append(self._loader.state)
        hint = (self._loader and self._loader.hint) or answer.hint or SERVER_HINT
        return ServerNotReadyError(" ".join(parts), hint=hint)

    def _report(self, outcome: str) -> None:
        config, started = self._config, self._entered - self._before
        ended = started + self._spent()
        phases = start_phases(
            started=self._entered,
            ended=ended,
            oldest=started - (0 if self._before else self._timeout),
            models=config.models,
            inputs=config.inputs,
            first_answer_seconds=self._first_answer.seconds if self._first_answer else None,
        )
        value = report(phases, outcome=outcome, started=started, ended=ended)
        if config.report:
            try:
                write_json(config.report, value)
            except DestinationError as error:  # a start is not worth less without its report
                _say(f"no report: {error}")
        if outcome != Terminated.__name__:
            print(table(value), file=sys.stderr, flush=True)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        InferenceError: The server is not ready, or something it needs is missing.
    """
    parsed = _parser().parse_args(argv)
    if parsed.preflight:
        _refuse(
            parsed,
            ("url", "timeout", "model", "models", "inputs", "report", "token_env"),
            "does not go with --preflight",
        )
        if problems := variable_problems(parsed.require_env, environ):
            raise combined(problems)
        return 0
    if parsed.timeout is None or (parsed.url is None and parsed.models is None):
        raise UsageError(
            "URL and --timeout are needed; --models where there is no URL.",
            hint=f"See {PROGRAM} --help.",
        )
    if parsed.url is None:
        _refuse(parsed, ("model", "inputs", "report", "token_env"), "needs a URL")
    config = Config(
        address=None if parsed.url is None else server_address(parsed.url),
        timeout_seconds=parsed.timeout,
        interval_seconds=parsed.interval,
        wanted=tuple(parsed.model),
        api=Api(parsed.api),
        models=parsed.models,
        inputs=parsed.inputs,
        report=parsed.report,
        variables=tuple(parsed.require_env),
        token_variable=parsed.token_env,
    )
    Gate(config, environ).run()
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"See {PROGRAM} --help.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Wait until a model server is ready, and say why when it will not be.",
    )
    add = parser.add_argument
    add(
        "url",
        metavar="URL",
        nargs="?",
        help="readiness address; without a path an open port is enough; see --models",
    )
    add(
        "--timeout",
        type=_positive,
        metavar="SECONDS",
        help=f"the budget; from the start's beginning where {START_VARIABLE} is set",
    )
    model = "wait until the server has this model, too (repeatable)"
    add("--model", action="append", default=[], metavar="NAME", help=model)
    add(
        "--api",
        choices=[api.value for api in Api],
        default=Api.OPENAI.value,
        help="how to ask for it (%(default)s)",
    )
    add(
        "--interval",
        type=_positive,
        default=0.25,
        metavar="SECONDS",
        help="pause between questions (%(default)s)",
    )
    loader = (
        "where the model loader publishes, or says why it cannot; without a URL, wait for "
        "the model alone"
    )
    add("--models", type=Path, metavar="DIRECTORY", help=loader)
    add(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="the input downloader's JSON file, for the report",
    )
    add("--report", type=Path, metavar="FILE", help="write what the start took, by phase, as JSON")
    add(
        "--require-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that must hold something",
    )
    add(
        "--token-env", default="", metavar="NAME", help="the variable with the token for the server"
    )
    add("--preflight", action="store_true", help="check --require-env, then end; no URL")
    return parser


def _refuse(parsed: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    given = [name for name in names if getattr(parsed, name)]
    if given:
        option = "URL" if given[0] == "url" else f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} {reason}.", hint=f"See {PROGRAM} --help.")


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def _say(text: str) -> None:
    print(f"{PROGRAM} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = run(PROGRAM, main, sys.argv[1:], os.environ, spare_seconds=SPARE_SECONDS)
    sys.stderr.flush()
    os._exit(code)  # not sys.exit, which would wait for a thread that waits for an answer
