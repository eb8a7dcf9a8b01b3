"""Creates a model on a running Ollama server, and makes the server load it.

The server pulls the model by its name, or creates it from a Modelfile or from files.

    python -m flytekitplugins.inference.programs.create_model http://localhost:11434 --name llama3.2

runs as a regular init container after the server, and ends with 0 when the server has loaded the
model. Files on a volume that outlives the pod are not downloaded again; a rerun after a kill
continues.

Facts: ollama/ollama v0.33.3, `server/routes.go`, `server/create.go`, `server/download.go`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import argparse
import json
import math
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import (
    ConfigError,
    IntegrityError,
    ServerError,
    ServerExitedError,
    ServerNotReadyError,
    SourceUnavailableError,
)
from ..facts.background import BackgroundCall
from .command_line import PROGRESS_SECONDS, CommandLine, count, positive_seconds, say
from .main import start
from .ollama.api import OllamaApi, RefusedError
from .ollama.files import OllamaFile, adapter_files, digest_of, model_files
from .ollama.modelfile import Command, decode_modelfile, fill_inputs, parse_modelfile
from .ollama.pull import QUIET_SECONDS, PullProgress, pull_model
from .ollama.recipe import Recipe, listed_name, name_problem, to_recipe
from .protocol import INPUTS_VARIABLE, MODELFILE_VARIABLE
from .retry import Retry
from .server.loader_watch import LoaderWatch
from .server.server_probe import Api, ProbeAnswer, ServerProbe, server_address
from .start_budget import StartBudget, enforced, start_budget, telling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAM = "create_model"
WAIT_SECONDS = 300.0
"""How long the server, which started before, may take to listen if the start has no budget."""
SERVER_HINT = "The log of model-server tells why; exit code 137 means that its memory limit is low."
BUDGET_HINT = (
    "Raise startup_timeout; or keep the model on a volume (models_volume), so that it is there."
)
KEEP_ALIVE = -1
"""The model stays loaded until the first request; then the server's OLLAMA_KEEP_ALIVE applies."""

_say = partial(say, PROGRAM)


@dataclass(frozen=True, kw_only=True, slots=True)
class CreationConfig:
    """The options of the command line."""

    url: str
    name: str
    """The name as Ollama lists it."""
    commands: tuple[Command, ...]
    """The Modelfile; empty if the server pulls the model by its name."""
    source: Path | None
    """The downloaded model; relative paths begin there."""
    models: Path | None
    stall_seconds: float
    retry: Retry


class Creation:
    """One run of the program.

    Args:
        config: What to create.
        budget: The budget of the whole start; the caller enforces it.
    """

    def __init__(self, config: CreationConfig, budget: StartBudget) -> None:
        self._config = config
        self._budget = budget
        self._doing = "Waiting for Ollama to listen"
        self._address = server_address(config.url.rstrip("/") + "/api/version")
        self._api = OllamaApi(self._address)

    def run(self) -> None:
        """Create the model on the server and make the server load it.

        Raises:
            InferenceError: A step failed.
        """
        with telling(lambda: f"{self._doing} had not finished.", lambda: BUDGET_HINT):
            self._run_steps()

    def _run_steps(self) -> None:
        config = self._config
        recipe = to_recipe(config.commands) if config.commands else None
        # before the files are read: the server listens only after the loader has published them
        self._wait()
        if recipe is None:
            self._pull(config.name)
        else:
            self._create(recipe, _files(recipe, config.source or Path()))
        # `create` only writes the model: the first request of the task would pay for its loading
        self._load()
        self._verify()

    def _retry(
        self, doing: str, action: Callable[[], None], position: Callable[[], int] = lambda: 0
    ) -> None:
        """Call `action` until it succeeds.

        An attempt that gets further than the earlier ones counts as the first.
        """
        attempt, best = 0, 0
        while True:
            try:
                return action()
            except (SourceUnavailableError, IntegrityError) as error:
                # a large pull that often breaks off but always gets further must come to its end
                attempt = 1 if position() > best else attempt + 1
                best = max(best, position())
                if attempt >= self._config.retry.attempts:
                    raise
                _say(f"{doing} failed, trying again: {error.message}")
            self._config.retry.wait(attempt, threading.Event())

    def _wait(self) -> None:
        """Wait until the server listens; the server itself waits for the model loader, if any.

        Raises:
            ServerNotReadyError: Without a budget, the server does not listen within `WAIT_SECONDS`.
        """
        loader = LoaderWatch(self._config.models) if self._config.models else None
        tick = loader.check if loader else lambda: None
        probe = ServerProbe(self._address, model="", api=Api.NONE, token="", tick=tick)
        answer: ProbeAnswer | None = None

        def state(within: str = "") -> str:
            last = f" {answer.asked} {answer.text}." if answer else ""
            return f"Ollama did not answer{within}.{last} {loader.state if loader else ''}".strip()

        def hint() -> str:
            return (loader.hint if loader else "") or SERVER_HINT

        is_bounded = math.isfinite(self._budget.seconds)
        with telling(state, hint):
            while not (answer := probe.ask_readiness(5.0)).is_ready:
                if not is_bounded and self._budget.spent >= WAIT_SECONDS:
                    raise ServerNotReadyError(state(f" within {WAIT_SECONDS:.0f} s"), hint=hint())
                tick()
                time.sleep(0.25)

    # Pulling

    def _pull(self, name: str) -> None:
        """Make the server pull a model that it does not have."""
        self._doing = "Pulling"
        if _has(self._ask("/api/tags"), name):
            _say(f"present model={name}")
            return
        progress = PullProgress(f"pulling model={name}")
        stall = self._config.stall_seconds

        def pull() -> None:
            pull_model(self._api, name, progress, stall_seconds=stall)

        self._retry("pulling", pull, lambda: progress.done)
        _say(f"pulled model={name} mb={progress.done / 1e6:.0f} seconds={self._budget.spent:.0f}")

    # Creating

    def _create(self, recipe: Recipe, files: Mapping[str, Sequence[OllamaFile]]) -> None:
        for name in recipe.deprecated:
            _say(f"left out parameter={name}: Ollama no longer has it")
        body: dict[str, Any] = {"model": self._config.name, **recipe.fields}
        if recipe.base:
            body["from"] = listed_name(recipe.base)
            self._pull(body["from"])
        self._doing = "Giving Ollama the model's files"
        for field, members in files.items():
            if members:
                body[field] = {file.name: self._upload(file) for file in members}
        self._doing = "Creating the model"
        self._retry("creating", lambda: self._create_once(body))
        _say(f"created model={self._config.name}")

    def _upload(self, file: OllamaFile) -> str:
        """Upload a file that the server does not have, and return its digest."""
        digest = digest_of(file.path, self._counting("hashing", file))

        def upload() -> None:
            # in each attempt: the last one may have arrived although its answer was lost
            if not self._api.has_blob(digest):
                count_bytes = self._counting("uploading", file)
                try:
                    self._api.upload(digest, file.path, count_bytes, seconds=QUIET_SECONDS)
                except RefusedError as error:
                    # Ollama answers 400 if the digest of the bytes differs: the upload is repeated
                    if error.status != 400:
                        raise
                    raise IntegrityError(
                        f"{file.path} did not arrive whole at Ollama: {error.text}."
                    ) from error

        try:
            self._retry("uploading", upload)
        except RefusedError as error:
            hint = "Give the volume of Ollama's models more space, or read the log of model-server."
            raise ServerError(
                f"Ollama does not take {file.path}: {error.text}.", hint=hint
            ) from error
        return digest

    def _counting(self, doing: str, file: OllamaFile) -> Callable[[int], None]:
        """Return a function that counts a file's bytes and logs the progress."""
        return PullProgress(f"{doing} file={file.name}", file.path.stat().st_size).add

    def _create_once(self, body: dict[str, Any]) -> None:
        status = ""
        stream = self._api.stream("/api/create", body, patience_seconds=QUIET_SECONDS)
        try:
            for event in stream.events():
                if event.get("status") not in ("", status, None):
                    status = str(event["status"])
                    _say(f"creating status={status}")
        except RefusedError as error:
            raise ServerError(
                f"Ollama cannot create {self._config.name}: {error.text}.",
                hint="Check the Modelfile and its files, and read the log of model-server.",
            ) from error
        if status != "success":
            raise SourceUnavailableError(
                f"Creating {self._config.name} broke off behind {status!r}."
            )

    # Loading

    def _load(self) -> None:
        """Make the server load the model, by an empty request.

        The request is for text or, if the model generates none, for embeddings.
        """
        self._doing = "Loading the model"
        name = self._config.name
        body: dict[str, Any] = {"model": name, "keep_alive": KEEP_ALIVE}
        try:
            capabilities = self._api.post("/api/show", {"model": name}).get("capabilities") or [
                "completion"
            ]
            is_text = "completion" in capabilities
            path = "/api/generate" if is_text else "/api/embed"
            body |= {"stream": False} if is_text else {"input": list[str]()}
            # in a thread, so the log shows progress: loading a large model takes minutes
            call = BackgroundCall(lambda: self._api.post(path, body, seconds=QUIET_SECONDS)).start()
            since = time.monotonic()
            while not call.wait(PROGRESS_SECONDS):
                _say(f"loading model={name} seconds={time.monotonic() - since:.0f}")
            call.result()
        except RefusedError as error:
            raise ServerError(
                f"Ollama cannot load {name}: {error.text}.",
                hint="If it lacks memory, raise mem or the number of GPUs, or choose a smaller "
                "quantization.",
            ) from error
        except SourceUnavailableError as error:
            raise ServerExitedError(
                f"Ollama broke off while it loaded {name}. {error.message}",
                hint="The log of model-server tells why; exit code 137 means that its memory "
                "limit (mem) is low.",
            ) from error

    def _verify(self) -> None:
        name = self._config.name
        if not _has(self._ask("/api/tags"), name):
            raise ServerError(
                f"Ollama has no {name} although it was created.",
                hint="Read the log of model-server.",
            )
        # `tags` lists what is stored, `ps` what is loaded
        entry = _find(self._ask("/api/ps"), name)
        if entry is None:
            raise ServerError(
                f"Ollama unloaded {name} at once.",
                hint="Another model may have taken its memory: read the log of model-server, and "
                "see OLLAMA_MAX_LOADED_MODELS.",
            )
        size = int(entry.get("size") or 0)
        in_vram = int(entry.get("size_vram") or 0)
        share = f" on_gpu={in_vram / size:.0%}" if size else ""
        _say(f"ready model={name} seconds={self._budget.spent:.1f} mb={size / 1e6:.0f}{share}")

    def _ask(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET request, which is safe to repeat."""
        answers: list[dict[str, Any]] = []

        def ask() -> None:
            try:
                answers.append(self._api.get(path))
            except RefusedError as error:
                if error.status < 500:
                    raise
                raise SourceUnavailableError(error.message) from error

        self._retry(f"GET {path}", ask)
        return answers[-1]


def _files(recipe: Recipe, source: Path) -> dict[str, Sequence[OllamaFile]]:
    """Return the files that a recipe names, by the field of the request.

    Args:
        recipe: The recipe; its relative paths begin at the source.
        source: A directory, or a file in it.

    Raises:
        FetchError: A file is missing, or is not a model.
    """
    root = source if source.is_dir() else source.parent

    def paths(values: Sequence[str]) -> list[Path]:
        return [root / Path(value).expanduser() for value in values]

    return {
        "files": model_files(paths(() if recipe.base else recipe.sources)),
        "adapters": adapter_files(paths(recipe.adapters)),
        "draft_files": model_files(paths(recipe.drafts)),
    }


def _has(models: Mapping[str, Any], name: str) -> bool:
    return _find(models, name) is not None


def _find(models: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """Return the entry of `name` in a list of models; Ollama ignores the case of names."""
    matches = (
        model
        for model in models.get("models") or ()
        if str(model.get("name", "")).lower() == name.lower()
    )
    return next(matches, None)


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        InferenceError: The server did not get the model.
    """
    parsed = _parser().parse_args(argv)
    text = environ.get(MODELFILE_VARIABLE, "") if parsed.modelfile is None else parsed.modelfile
    commands: tuple[Command, ...] = ()
    if text or parsed.source:
        commands = fill_inputs(parse_modelfile(text, default_from=parsed.source), _inputs(environ))
    config = CreationConfig(
        url=parsed.url,
        name=listed_name(parsed.name),
        commands=commands,
        source=Path(parsed.source) if parsed.source else None,
        models=parsed.models,
        stall_seconds=parsed.stall_timeout,
        retry=Retry(attempts=parsed.attempts, backoff_seconds=parsed.backoff),
    )
    budget = start_budget(environ, timeout_seconds=parsed.timeout)
    with enforced(PROGRAM, budget):
        Creation(config, budget).run()
    return 0


def _inputs(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the task's inputs, or `None` if the pod has no input downloader.

    Raises:
        ConfigError: The file of the inputs cannot be read.
    """
    if not (path := environ.get(INPUTS_VARIABLE)):
        return None
    try:
        inputs = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"The task's inputs in {path} cannot be read: {error}.") from error
    if not isinstance(inputs, dict):
        raise ConfigError(f"{path} does not hold the task's inputs by name.")
    return inputs


def _parser() -> CommandLine:
    parser = CommandLine(
        prog=PROGRAM, description="Create a model on a running Ollama server, and load it."
    )
    add = parser.add_argument
    add("url", metavar="URL", help="the server's address, such as http://localhost:11434")
    add(
        "--name",
        type=_name,
        required=True,
        help="the model to pull, or to create from a Modelfile or from files",
    )
    add(
        "--modelfile",
        type=_text,
        metavar="FILE",
        help=f"its Modelfile; by default the text in {MODELFILE_VARIABLE}",
    )
    add(
        "--source",
        default="",
        metavar="PATH",
        help="the downloaded model: FROM's default, and the start of relative paths",
    )
    add(
        "--models",
        type=Path,
        metavar="DIRECTORY",
        help="where the model loader publishes the model or its error",
    )
    add(
        "--timeout",
        type=positive_seconds,
        default=math.inf,
        metavar="SECONDS",
        help="the time for everything (unlimited)",
    )
    add(
        "--stall-timeout",
        type=positive_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long a pull may make no progress (%(default)s)",
    )
    add("--attempts", type=count(), default=6, help="attempts of each step (%(default)s)")
    add(
        "--backoff",
        type=positive_seconds,
        default=1.0,
        metavar="SECONDS",
        help="maximum of the first wait (%(default)s)",
    )
    return parser


def _name(text: str) -> str:
    if problem := name_problem(text):
        raise argparse.ArgumentTypeError(problem)
    return text


def _text(path: str) -> str:
    try:
        return decode_modelfile(Path(path).read_bytes())
    except (OSError, UnicodeError) as error:
        raise argparse.ArgumentTypeError(f"{path!r} cannot be read: {error}") from error


if __name__ == "__main__":
    start(PROGRAM, main)
