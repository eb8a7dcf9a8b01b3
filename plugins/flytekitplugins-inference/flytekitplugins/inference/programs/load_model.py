"""The model loader: a model, or LoRA adapters, as complete and verified files for the server.

    python -m flytekitplugins.inference.programs.load_model Qwen/Qwen2.5-0.5B-Instruct

looks up the source's revision, downloads it into a cache (unless the cache has it), verifies it,
points `<publish>/current` to it, writes `<publish>/metadata.json` and, last, `<publish>/.ready`.
Then it waits, as a process of a few megabytes; with `--update-interval` it looks for new revisions
from time to time. A rerun continues.
"""

from __future__ import annotations

if __name__ == "__main__":  # before all else is imported
    from .sigterm import end_at_once

    end_at_once()

import argparse
import contextlib
import inspect
import os
import re
import shutil
import signal
import socket
import sys
import traceback
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import MissingDependencyError, ServerError, UsageError
from ..facts.background import BackgroundCall
from ..facts.model_reference import MODEL_FORMS
from . import model_wait
from .command_line import CommandLine, count, say, seconds
from .main import Terminated, start
from .model.cache import ModelCache
from .model.fetcher import Fetcher, FetchResult
from .model.lease import Heartbeat
from .model.notify import KINDS, parse_notifier
from .model.publication import Publication, describe, is_published, swap_link, target_of
from .model.source import Selection, SourceAccess
from .model.source_check import ANSWER_SECONDS, check, check_retry
from .model.targets import Target, adapter_targets, model_target
from .model.updater import Updater, update_record
from .protocol import MODEL_CACHE_DIRECTORY, MODELS_DIRECTORY, START_VARIABLE, failure_line
from .retry import Retry
from .start_budget import BudgetSpent, enforced, release, start_budget, telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = "load_model"
RENEWAL_SECONDS = 30.0
"""How often the waiting process renews the leases of the published versions."""
_UNITS = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}

_say = partial(say, PROGRAM)


class Loader:
    """One run of the program.

    Args:
        options: The command line.
        environ: Environment variables: tokens, endpoints, Flyte's storage configuration.
    """

    def __init__(self, options: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._options = options
        self._environ = environ
        self._heartbeat = Heartbeat()
        cache = ModelCache(Path(options.cache).absolute(), self._heartbeat, options.cache_limit)
        self._notifiers = [parse_notifier(text) for text in options.notify]
        self._publication = Publication(Path(options.publish).absolute())
        retry = Retry(attempts=options.attempts, backoff_seconds=options.backoff)
        self._fetcher = Fetcher(
            cache=cache,
            heartbeat=self._heartbeat,
            holder=options.holder or f"{socket.gethostname()}-{uuid.uuid4().hex[:12]}",
            jobs=options.jobs,
            stall_seconds=options.stall_timeout,
            retry=check_retry(retry) if options.check else retry,
            say=_say,
            advance=self._publication.advance,
        )
        self._staging = Path(options.cache).absolute() / f".staging-{self._fetcher.holder}"
        self._updater = Updater(self._fetcher, self._notifiers, _say)
        self._targets = self._make_targets(environ)
        self._downloads: list[FetchResult] = []

    def _make_targets(self, environ: Mapping[str, str]) -> list[Target]:
        options = self._options
        access = SourceAccess(
            environ=environ,
            connections=options.jobs,
            stall_seconds=options.stall_timeout,
            may_write=not options.check,
        )
        targets = []
        if options.source:
            targets.append(
                model_target(
                    options.source,
                    revision=options.revision,
                    served_names=tuple(options.model_name),
                    selection=Selection(
                        include=tuple(options.include), exclude=tuple(options.exclude)
                    ),
                    link=self._publication.current,
                    access=access,
                    staging=self._staging,
                )
            )
        if options.adapter:
            directory = Path(options.adapters_directory).absolute()
            targets += adapter_targets(
                options.adapter, directory=directory, access=access, staging=self._staging
            )
        return targets

    def check(self) -> None:
        """Check whether `start` can succeed, without writing anything."""
        cache = Path(self._options.cache).absolute()
        check(
            self._targets,
            self._fetcher,
            cache=cache,
            variables=self._options.require_env,
            environ=self._environ,
        )

    def start(self) -> None:
        """Publish everything for the first time, or again after the container was restarted."""
        publication = self._publication
        publication.begin()
        # the volume outlives a restart of the container: the server may already read from it
        is_serving = publication.is_ready
        fields = (publication.metadata() or {}) if is_serving else {}
        fields.setdefault("updates", update_record(self._options.update_interval, self._notifiers))
        try:
            for target in self._targets:
                self._publish(target, fields, is_serving=is_serving)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        # in this order: whoever sees `.ready` must find the links and the metadata
        publication.write(fields)
        publication.ready()
        _say(f"ready path={publication.directory}")

    def _publish(self, target: Target, fields: dict[str, Any], *, is_serving: bool) -> None:
        with telling(lambda: f"{target.source.label} was being looked up."):
            model = self._fetcher.fetch(target.source, target.selection, target.check)
        if not model.is_from_cache:
            self._downloads.append(model)
        if is_serving and self._notifiers and not is_published(model.version, target.link):
            # the container was restarted, its server was not, so the server must take the update
            try:
                self._updater.replace(target, model, fields)
            except ServerError as error:
                fields["updates"]["last_error"] = f"{target.name}: {error.code}: {error.message}"
                _say(f"refused target={target.name} reason={error.message!r}")
            return
        with model.phase("publish"):
            swap_link(target.link, model.version.files)
        target.describe_in(fields, describe(target.source.label, target.source.ref, model))
        _say(
            f"published target={target.name} revision={model.version.revision} "
            f"cache={model.is_from_cache}"
        )

    def poll(self) -> None:
        """Look once for other revisions; on failure, the published version stays."""
        fields = self._publication.metadata()
        if fields is None or any(target_of(target.link) is None for target in self._targets):
            self.start()
            return
        try:
            self._updater.keep(fields)
            self._updater.poll(self._targets, fields)
            self._publication.write(fields)
        # on any failure the server keeps its version, and the next look may succeed
        except Exception as error:
            traceback.print_exc()
            _say(f"poll failed error={type(error).__name__}")
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def sync(self) -> None:
        """Flush the downloaded files to the disk, while the server already reads them."""
        for model in self._downloads:
            # in a thread: only the main thread handles SIGTERM, and `fsync` would delay it
            BackgroundCall(model.version.sync).start().wait()

    def wait(self, argv: Sequence[str], waiter: str) -> NoReturn:
        """Become the small process that waits for SIGTERM or for the next look at the source.

        Args:
            argv: The arguments of this program, for that look.
            waiter: The source text of the small process.
        """
        leases = self._updater.keep(self._publication.metadata() or {})
        command = [
            sys.executable,
            "-m",
            _module(),
            *_without_state(argv),
            "--poll",
            "--holder",
            self._fetcher.holder,
        ]
        interval = self._options.update_interval
        words = [str(interval), str(RENEWAL_SECONDS), *map(str, leases), "--", *command]
        # a blocked signal stays pending across `exec`, so the small process gets every SIGTERM
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        sys.stderr.flush()
        release()
        # the start is over: a later look at the source has no budget
        environ = {name: value for name, value in os.environ.items() if name != START_VARIABLE}
        # the small process runs isolated (-I); the next look, its child, must find this package
        environ["PYTHONPATH"] = _path_of_package()
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", waiter, *words], environ)  # noqa: S606

    def fail(self, error: Exception) -> None:
        """Publish why the model cannot be loaded, for the containers that wait for it."""
        self._publication.fail(failure_line(PROGRAM, error))

    def release(self) -> None:
        """Give up the leases of the published versions, because the pod ends."""
        self._publication.advance()
        for lease in self._updater.keep(self._publication.metadata() or {}):
            with contextlib.suppress(OSError):
                lease.unlink()


def _module() -> str:
    return f"{__package__}.load_model"


def _path_of_package() -> str:
    """Return PYTHONPATH, preceded by the directory or archive that holds this package."""
    root = str(Path(__file__).absolute().parents[3])
    rest = [
        entry
        for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        if entry and entry != root
    ]
    return os.pathsep.join([root, *rest])


def _waiter() -> str:
    """Return the source text of `model_wait`.

    It runs without this package, which would double its memory.

    Raises:
        MissingDependencyError: Only the bytecode is installed.
    """
    try:
        return inspect.getsource(model_wait)  # from a directory or an archive
    except OSError as error:
        message = (
            f"The source of {model_wait.__name__}, which waits after the model is published, "
            "cannot be read."
        )
        raise MissingDependencyError(
            message, hint="Install this package with its .py files."
        ) from error


def _without_state(argv: Sequence[str]) -> list[str]:
    """Return the arguments without those that `Loader.wait` appended."""
    words = list(argv)
    return words[: words.index("--poll")] if "--poll" in words else words


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the program; see `--help`.

    Raises:
        UsageError: The arguments are wrong.
        InferenceError: The model cannot be loaded.
    """
    # the waiting process blocks them, and starts this one for each look at the source
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    parser = _parser()
    options = parser.parse_args(argv)
    if not options.source and not options.adapter:
        raise UsageError("There is neither a model nor an adapter to load.", hint=parser.hint)
    if bool(options.adapter) != bool(options.adapters_directory):
        raise UsageError("--adapter and --adapters-directory need each other.", hint=parser.hint)
    if options.require_env and not options.check:
        raise UsageError("--require-env goes with --check only.", hint=parser.hint)
    with enforced(PROGRAM, start_budget(environ)):
        if options.check:
            options.stall_timeout = min(options.stall_timeout, ANSWER_SECONDS)
            Loader(options, environ).check()
        else:
            _load(Loader(options, environ), options, argv)
    return 0


def _load(loader: Loader, options: argparse.Namespace, argv: Sequence[str]) -> None:
    """Publish, or look for updates once; then become the waiting process, unless `--once`."""
    try:
        # first, so a missing source file fails before the download
        waiter = "" if options.once else _waiter()
        loader.poll() if options.poll else loader.start()
    except Exception as error:
        loader.fail(error)
        raise
    # not a failure of the source: no error is published, and the next pod may prune the versions
    except (Terminated, BudgetSpent):
        loader.release()
        raise
    # after `.ready`: the server reads from the page cache, so it need not wait for the disk
    loader.sync()
    if not options.once:
        loader.wait(argv, waiter)


def _forms() -> str:
    """Return the explanation of SOURCE, each form on a line with its meaning below."""
    lines = [f"  {', '.join(form.texts)}\n      {form.meaning}" for form in MODEL_FORMS]
    return "\n".join(["A SOURCE is one of", *lines])


def _parser() -> CommandLine:
    parser = CommandLine(
        prog=PROGRAM,
        description="Download a model or LoRA adapters: verified, cached, and replaced only as a "
        "whole.",
        epilog=_forms(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_source(parser)
    _add_places(parser)
    _add_updates(parser)
    _add_modes(parser)
    _add_transfer(parser)
    return parser


def _add_source(parser: CommandLine) -> None:
    """Add the arguments that choose the model."""
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        nargs="?",
        default="",
        help="the source of the model, see below",
    )
    add(
        "--revision",
        default="",
        help="branch, tag or commit (main), or a revision from the metadata",
    )
    add("--include", action="append", default=[], metavar="GLOB", help="only files like this")
    add("--exclude", action="append", default=[], metavar="GLOB", help="no files like this")


def _add_places(parser: CommandLine) -> None:
    """Add where models and adapters go."""
    add = parser.add_argument
    add(
        "--publish",
        default=MODELS_DIRECTORY,
        metavar="DIR",
        help="current, metadata.json, .ready (%(default)s)",
    )
    add(
        "--cache",
        default=MODEL_CACHE_DIRECTORY,
        metavar="DIR",
        help="complete versions, may be shared (%(default)s)",
    )
    add(
        "--cache-limit",
        type=_size,
        metavar="SIZE",
        help="maximum size, in bytes or as 100Gi: the least recently used versions go first",
    )
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="[NAME=]SOURCE",
        help="a LoRA adapter; NAME: owner--name",
    )
    add(
        "--adapters-directory",
        default="",
        metavar="DIR",
        help="where adapters appear, each under its name",
    )


def _add_updates(parser: CommandLine) -> None:
    """Add the arguments for newer revisions."""
    add = parser.add_argument
    add(
        "--update-interval",
        type=seconds(),
        default=0.0,
        metavar="SECONDS",
        help="look for new revisions",
    )
    add(
        "--notify",
        action="append",
        default=[],
        metavar="KIND=URL",
        help=f"which server to notify of a new version: {', '.join(KINDS)}",
    )
    model_name_help = (
        "what the server calls the model (last part of SOURCE); repeatable where SOURCE holds "
        "several"
    )
    add("--model-name", action="append", default=[], metavar="NAME", help=model_name_help)


def _add_modes(parser: CommandLine) -> None:
    """Add the modes that end, and what a check looks at."""
    add = parser.add_argument
    add("--once", action="store_true", help="end when everything is published")
    add(
        "--check",
        action="store_true",
        help="only say whether the start can succeed; writes and downloads nothing",
    )
    variable = "--check: a variable that must not be empty"
    add("--require-env", action="append", default=[], metavar="NAME", help=variable)


def _add_transfer(parser: CommandLine) -> None:
    """Add the limits of a download, and what the loader tells its next run."""
    add = parser.add_argument
    add(
        "--jobs",
        type=count(),
        default=8,
        metavar="N",
        help="parts to fetch at once (%(default)s)",
    )
    parser.add_retries()
    stall = "silence that is a failure (%(default)s)"
    add("--stall-timeout", type=seconds(0.01), default=45.0, metavar="SECONDS", help=stall)
    add("--poll", action="store_true", help=argparse.SUPPRESS)
    add("--holder", default="", help=argparse.SUPPRESS)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]i?|Ki|)", text)
    if not match or match[2] not in _UNITS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of bytes; write 107374182400 or 100Gi"
        )
    return int(float(match[1]) * _UNITS[match[2]])


if __name__ == "__main__":
    start(PROGRAM, main)
