"""The server gate: waits until a model server is ready, or says why it is not.

    python -m flytekitplugins.inference.programs.wait_for_server http://localhost:8000/health
        --timeout 600

runs as a regular init container after the server. It ends with 0 when the server is ready, or with
an error that ends the pod: when the budget is spent, or as soon as the failure is certain. Without
an address it waits for the model alone, before a server that cannot wait by itself. With
`--preflight` it only checks the requirements of a start.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import (
    DestinationError,
    InferenceError,
    ServerExitedError,
    ServerNotReadyError,
    UsageError,
)
from ..facts.readiness import HEALTH_SECONDS
from .command_line import CommandLine, positive_seconds, say
from .disk import write_json
from .main import Terminated, start
from .preflight import combined, token, variable_problems
from .protocol import START_VARIABLE
from .server.loader_watch import LoaderWatch
from .server.server_probe import Api, ServerProbe, server_address
from .server.start_report import report, start_phases, table
from .start_budget import BudgetSpent, StartBudget, enforced, start_budget, telling

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from ..facts.address import Address
    from .server.server_probe import ProbeAnswer

PROGRAM = "wait_for_server"
MIN_REQUEST_SECONDS = 1.0
"""Minimum time of the last request: a late answer is better than an error without one."""
SPARE_SECONDS = 2.0
"""The last request and its answer end at most this long after the budget."""
MAX_CLOSINGS = 3
"""Number of times that the open port closes before the start fails: some servers look for a free
port first, or restart once."""
SERVER_HINT = (
    "Read the log of model-server. If it was still loading, raise startup_timeout; if it ended, "
    "look at its exit code (137: memory limit) and its arguments (host and port)."
)
FIRST_LOG_SECONDS = 3.0
LOG_SECONDS = 10.0
"""Waits are logged less often than downloads, because their state changes less often."""

_say = partial(say, PROGRAM)


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """The options of the command line."""

    address: Address | None
    """The server's address; without one, the gate waits for the model only."""
    interval_seconds: float
    model_names: tuple[str, ...]
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
        environ: Environment variables, some of them required.
        budget: The budget of the whole start. The gate checks it by itself, so the last request
            still gets its answer; the caller enforces it `SPARE_SECONDS` later.
    """

    def __init__(self, config: GateConfig, environ: Mapping[str, str], budget: StartBudget) -> None:
        self._config = config
        self._environ = environ
        self._budget = budget
        self._before = budget.spent if budget.is_shared else 0.0
        """Seconds of the budget that were spent before the gate began."""
        self._entered = time.time()
        self._next_log = time.monotonic() + FIRST_LOG_SECONDS
        self._loader = LoaderWatch(config.models) if config.models else None
        self._answer: ProbeAnswer | None = None
        self._first_answer: ProbeAnswer | None = None
        self._is_open = False
        self._was_open = False
        self._closings = 0

    def run(self) -> None:
        """Wait until the server is ready or, without an address, until the model is published.

        Raises:
            ServerNotReadyError: It is not ready within the budget.
            ServerExitedError: The server ends again and again.
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
        _say(f"ready seconds={self._budget.spent:.1f}")

    def _wait_for_model(self, loader: LoaderWatch) -> None:
        while not loader.is_ready:
            self._tick()
            if self._budget.left <= 0:
                raise ServerNotReadyError(
                    f"The model was not there {self._when()}. {loader.state}", hint=loader.hint
                )
            self._pause(min(self._config.interval_seconds, self._budget.left))

    def _wait_for_server(self, address: Address) -> None:
        config = self._config
        key = token(config.token_variable, self._environ)
        probes = [
            ServerProbe(address, model=name, api=config.api, token=key, tick=self._tick)
            for name in config.model_names or ("",)
        ]
        while True:
            self._tick()
            answer = self._note(probes[0].ask_readiness(self._request_seconds()))
            # a server may be healthy before it has its models, so each is asked for by name
            for probe in probes:
                if answer.is_ready and probe.asks_for_model:
                    answer = self._note(probe.ask_model(self._request_seconds()))
                    self._first_answer = answer if answer.is_ready else None
            if answer.is_ready:
                return
            if self._budget.left <= 0:
                raise self._not_ready(answer)
            self._pause(min(config.interval_seconds, self._budget.left))

    def _when(self) -> str:
        before = (
            f", {self._before:.0f} s of which were over when the gate began"
            if self._before >= 1
            else ""
        )
        return f"after {self._budget.spent:.0f} s{before}"

    def _last(self) -> str:
        return f"{self._answer.asked} {self._answer.text}" if self._answer else "no answer yet"

    def _request_seconds(self) -> float:
        return min(max(self._budget.left, MIN_REQUEST_SECONDS), HEALTH_SECONDS)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        # in short sleeps, so a failure of the loader ends the wait early
        while (remaining := end - time.monotonic()) > 0:
            time.sleep(min(remaining, 0.5))
            self._tick()

    def _note(self, answer: ProbeAnswer) -> ProbeAnswer:
        """Store an answer, and count how often the port closed.

        Raises:
            ServerExitedError: The port closed too often.
        """
        self._answer = answer
        if answer.is_open:
            self._is_open = self._was_open = True
        # a refusal is certain; a timeout is not, and does not count as a closed port
        elif answer.is_open is False and self._is_open:
            self._is_open = False
            self._closings += 1
            if self._closings >= MAX_CLOSINGS:
                raise ServerExitedError(
                    "The model server starts and ends again: the server's port opened and closed "
                    f"{self._closings} times in {self._budget.spent:.0f} s. "
                    f"{answer.asked} {answer.text}.",
                    hint="The log of model-server tells why it ends; exit code 137 means that its "
                    "memory limit is low.",
                )
        return answer

    def _tick(self) -> None:
        """Check the loader, and log the last answer from time to time."""
        if self._loader:
            self._loader.check()
        if time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + LOG_SECONDS
            last = self._last() if self._config.address else "the model is not there yet"
            spent, seconds = self._budget.spent, self._budget.seconds
            _say(f"waiting seconds={spent:.0f} budget={seconds:g} last: {last}")

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
        config = self._config
        started = self._entered - self._before
        ended = started + self._budget.spent
        phases = start_phases(
            started=self._entered,
            ended=ended,
            # without a shared clock, the start may have begun up to one budget before the gate
            oldest=started - (0 if self._budget.is_shared else self._budget.seconds),
            models=config.models,
            inputs=config.inputs,
            first_answer_seconds=self._first_answer.seconds if self._first_answer else None,
        )
        value = report(phases, outcome=outcome, started=started, ended=ended)
        if config.report:
            try:
                write_json(config.report, value)
            # a start that succeeded must not fail because of its report
            except DestinationError as error:
                _say(f"no report: {error}")
        if outcome != Terminated.__name__:
            print(table(value), file=sys.stderr, flush=True)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        InferenceError: The server is not ready, or something it needs is missing.
    """
    parser = _parser()
    parsed = parser.parse_args(argv)
    # runs before the server's image is pulled; the gate runs only after every sidecar has started
    if parsed.preflight:
        _refuse(
            parser,
            parsed,
            ("url", "timeout", "model", "models", "inputs", "report", "token_env"),
            "does not go with --preflight",
        )
        # the preflight is the first program of a start, so it sets the clock
        start_budget(environ)
        if problems := variable_problems(parsed.require_env, environ):
            raise combined(problems)
        return 0
    if parsed.timeout is None or (parsed.url is None and parsed.models is None):
        raise UsageError(
            "URL and --timeout are needed; --models where there is no URL.",
            hint=parser.hint,
        )
    if parsed.url is None:
        _refuse(parser, parsed, ("model", "inputs", "report", "token_env"), "needs a URL")
    config = GateConfig(
        address=None if parsed.url is None else server_address(parsed.url),
        interval_seconds=parsed.interval,
        model_names=tuple(parsed.model),
        api=Api(parsed.api),
        models=parsed.models,
        inputs=parsed.inputs,
        report=parsed.report,
        variables=tuple(parsed.require_env),
        token_variable=parsed.token_env,
    )
    budget = start_budget(environ, timeout_seconds=parsed.timeout)
    with enforced(PROGRAM, budget, spare_seconds=SPARE_SECONDS):
        Gate(config, environ, budget).run()
    return 0


def _parser() -> CommandLine:
    parser = CommandLine(
        prog=PROGRAM,
        description="Wait until a model server is ready, or say why it is not.",
    )
    add = parser.add_argument
    add(
        "url",
        metavar="URL",
        nargs="?",
        help="readiness address; without a path, an open port is enough; see --models",
    )
    add(
        "--timeout",
        type=positive_seconds,
        metavar="SECONDS",
        help=f"the budget; with {START_VARIABLE}, it counts from the beginning of the start",
    )
    model = "also wait until the server has this model (repeatable)"
    add("--model", action="append", default=[], metavar="NAME", help=model)
    add(
        "--api",
        choices=[api.value for api in Api],
        default=Api.OPENAI.value,
        help="the API that reports the model (%(default)s)",
    )
    add(
        "--interval",
        type=positive_seconds,
        default=0.25,
        metavar="SECONDS",
        help="pause between requests (%(default)s)",
    )
    loader = (
        "where the model loader publishes the model or its error; without a URL, wait for the "
        "model only"
    )
    add("--models", type=Path, metavar="DIRECTORY", help=loader)
    add(
        "--inputs",
        type=Path,
        metavar="FILE",
        help="the input downloader's JSON file, for the report",
    )
    add("--report", type=Path, metavar="FILE", help="write the duration of each phase as JSON")
    add(
        "--require-env",
        action="append",
        default=[],
        metavar="NAME",
        help="a variable that must not be empty",
    )
    add(
        "--token-env", default="", metavar="NAME", help="the variable with the token for the server"
    )
    add("--preflight", action="store_true", help="only check --require-env; takes no URL")
    return parser


def _refuse(
    parser: CommandLine, parsed: argparse.Namespace, names: Sequence[str], reason: str
) -> None:
    options = [name for name in names if getattr(parsed, name)]
    if options:
        option = "URL" if options[0] == "url" else f"--{options[0].replace('_', '-')}"
        raise UsageError(f"{option} {reason}.", hint=parser.hint)


if __name__ == "__main__":
    start(PROGRAM, main)
