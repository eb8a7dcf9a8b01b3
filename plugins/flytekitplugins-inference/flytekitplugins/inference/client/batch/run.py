"""`batch` and `abatch`: a run from its arguments to its result."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DestinationError, ServerError, ServerNotReadyError
from ...facts.wording import duration
from ..report.collect import note_batch
from .batch_options import BatchArguments, BatchOptions, arguments_of
from .caller import Caller, Endpoint
from .checkpoint import CheckpointedJournal, current_checkpoint
from .engine import Engine, Options, Sources
from .faults import Fault, fault_of_exception
from .identity import code_digest, incomparable
from .journal import Journal
from .limiter import Limiter
from .output import Output, open_output
from .progress import Progress
from .result import BatchResult
from .rows import open_rows
from .signals import stopped_by_signals
from .threads import Worker
from .work import FunctionWork, HttpWork, as_work

if TYPE_CHECKING:
    from typing_extensions import Unpack

_AT_ONCE = 256
"""Records that an `async for` reads at once."""


def batch(
    endpoint: Endpoint,
    rows: Any,
    **options: Unpack[BatchOptions],
) -> BatchResult:
    """Ask the model server about every row, as many at once as serves it best, and return when all are finished.

    Works in any thread, also inside a running event loop, which it blocks; `abatch` does not.

    SIGTERM and Ctrl-C stop a batch of the main thread: nothing more is sent, requests in flight
    have `engine.STOP_SECONDS` to be answered, all that is finished is kept, and then the signal has
    its usual effect. A second Ctrl-C has it at once.

    Args:
        endpoint: The server.
        rows: Any iterable, also an asynchronous one; a table or column of pandas, pyarrow or
            polars; the path of a `.jsonl`, `.ndjson` or `.parquet` file. It is read as it is needed
            and may be larger than memory.
        **options: `work=`, which is required, `output=`, `id=`, `max_concurrency=` and so on;
            `BatchOptions` has them all.

    Returns:
        The counts, the speed, and the records in order.

    Raises:
        ConfigError: An argument is wrong, or does not exist (`ArgumentError`).
        SourceNotFoundError: `rows` is the path of a file that does not exist.
        DestinationError: The output cannot be written, exists and is not a batch's, or is in use.
        BatchFailedError: More rows failed than `max_failures`.
        ServerNotReadyError: The server was gone for longer than `outage_seconds`; what is finished
            is kept.
    """
    return _in_a_thread(AsyncBatch(arguments_of(endpoint, rows, options)))


def abatch(
    endpoint: Endpoint,
    rows: Any,
    **options: Unpack[BatchOptions],
) -> AsyncBatch:
    """Do what `batch` does, on the running event loop.

    `await abatch(…)` returns the result; `async for record in abatch(…)` yields the records in
    order as they come. Arguments and errors are those of `batch`.
    """
    return AsyncBatch(arguments_of(endpoint, rows, options))


class AsyncBatch:
    """A batch that is awaited, or iterated over. Each starts it, so it is done once."""

    def __init__(self, arguments: BatchArguments) -> None:
        self._arguments = arguments
        self._started = False
        self._is_stopped = False
        self._task: asyncio.Task[Any] | None = None
        self._engine: Engine | None = None
        self.result: BatchResult | None = None
        """Once it is over."""

    def __await__(self) -> Generator[Any, None, BatchResult]:
        return self._run().__await__()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        self._start()
        async with _opened(self._arguments) as run:
            engine = asyncio.create_task(run.engine.run())
            try:
                async for record in run.records(engine):
                    yield record
                await engine
                self.result = run.result()
            finally:
                engine.cancel()
                await asyncio.gather(engine, return_exceptions=True)

    async def _run(self) -> BatchResult:
        self._start()
        self._task = asyncio.current_task()
        if self._is_stopped:
            raise asyncio.CancelledError
        async with _opened(self._arguments) as run:
            self._engine = run.engine
            await run.engine.run()
            self.result = run.result()
        return self.result

    def stop(self) -> None:
        """Stop in order a batch that is awaited, or is about to be; the second time, at once.

        To be called on its event loop. What awaits it gets `CancelledError`.
        """
        if self._engine is not None and not self._is_stopped:
            self._engine.stop()
        elif self._task is not None:
            self._task.cancel()
        self._is_stopped = True

    def say_how_to_continue(self) -> None:
        """Say after Ctrl-C or SIGTERM that the work is not lost."""
        if self._arguments.output is not None and self._arguments.resume:
            sys.stderr.write("batch: stopped; what is finished is kept, the same call continues\n")

    def _start(self) -> None:
        if self._started:
            raise ConfigError(
                "This batch was started before.",
                hint="Call abatch again; it continues what is there.",
            )
        self._started = True


@dataclass(slots=True)
class _Run:
    """A run whose files are open."""

    engine: Engine
    directory: Any
    """Temporary, when there is no `output=`."""

    def result(self) -> BatchResult:
        return _result_of(self.engine, self.directory)

    async def records(self, engine: asyncio.Task[None]) -> AsyncIterator[dict[str, Any]]:
        """Yield the records in order until the engine is done."""
        journal = self.engine.sources.journal
        disk = self.engine.sources.disk
        first = 0
        while True:
            over = engine.done()
            self.engine.advanced.clear()
            found = await disk.call(
                lambda first=first: list(islice(journal.in_order(first), _AT_ONCE))
            )
            for position, _, record in found:
                yield {"index": position, **json.loads(record)}
            first += len(found)
            if not found and over:
                return
            if not found:
                await self.engine.advanced.wait()


def _result_of(engine: Engine, directory: Any = None) -> BatchResult:
    counts = engine.counts
    return BatchResult(
        path=engine.sources.output.path,
        rows=counts.finished,
        succeeded=counts.succeeded,
        failed=counts.failed,
        resumed=counts.resumed,
        retried=counts.retried,
        duration=time.monotonic() - engine.began,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        max_concurrency=engine.limiter.ceiling,
        concurrency=tuple(engine.series),
        failures=tuple(engine.failures),
        _directory=directory,
    )


def _note(engine: Engine) -> None:
    """Let a report on the server show how far the run is."""
    note_batch(engine.endpoint.url, _result_of(engine).summary())


@contextlib.asynccontextmanager
async def _opened(arguments: BatchArguments) -> AsyncIterator[_Run]:
    """Open all that a run needs, and close it after."""
    async with contextlib.AsyncExitStack() as stack:
        work = as_work(arguments.work)
        rows = open_rows(arguments.rows)
        progress = Progress(shown=arguments.progress)
        directory = None
        if arguments.output is None:
            directory = tempfile.TemporaryDirectory(prefix="inference-batch-")
            path = Path(directory.name, "output.jsonl")
        else:
            path = Path(arguments.output)
        caller = Caller(arguments.endpoint, work, deadline=arguments.deadline)
        stack.push_async_callback(caller.aclose)
        parameters = await _parameters(arguments, caller, work, progress)
        disk = Worker("batch-disk")
        uploader = Worker("batch-checkpoint")
        stack.callback(disk.close)
        stack.callback(uploader.close)
        journal = await disk.call(_open_journal, path, parameters, arguments.resume, progress)
        stack.callback(journal.close)
        checkpoint = None
        if arguments.resume and (flyte := current_checkpoint()) is not None:
            name = json.dumps(
                [path.name if arguments.output else None, parameters], sort_keys=True, default=repr
            )
            checkpoint = CheckpointedJournal(flyte, journal, name)
            stack.callback(checkpoint.close)
            if restored := await disk.call(checkpoint.restore):
                progress.say(
                    f"continues: {restored:,} results of an earlier attempt are in Flyte's "
                    "checkpoint"
                )
        is_vectors = isinstance(work, HttpWork) and work.kind == "embeddings"
        output: Output = await disk.call(lambda: open_output(path, vectors=is_vectors))
        sources = Sources(rows, arguments.id, journal, output, checkpoint, disk, uploader)
        options = Options(
            deadline=arguments.deadline,
            max_retries=arguments.max_retries,
            max_failures=arguments.max_failures,
            outage_seconds=arguments.outage_seconds,
        )
        engine = Engine(
            arguments.endpoint,
            work,
            caller,
            sources,
            Limiter(arguments.max_concurrency),
            options,
            progress,
            _note,
        )
        yield _Run(engine, directory)


async def _parameters(
    arguments: BatchArguments, caller: Caller, work: HttpWork | FunctionWork, progress: Progress
) -> dict[str, Any]:
    """Return all that makes this run's answers what they are; what else changes does not start it anew."""
    model = await _find_model(arguments, caller, progress)
    if arguments.resume:
        _tell_incomparable(arguments, progress)
    id_source = code_digest(arguments.id) if callable(arguments.id) else arguments.id
    return {**work.identity(), "model": model, "id": id_source}


def _tell_incomparable(arguments: BatchArguments, progress: Progress) -> None:
    for name, function in (("work", arguments.work), ("id", arguments.id)):
        held = incomparable(function) if callable(function) else []
        if held:
            what = f"{name}= holds {', '.join(held[:5])}, which cannot be compared between runs"
            progress.say(
                f"{what}, so the same call starts anew; give texts, numbers or a global instead"
            )


async def _find_model(arguments: BatchArguments, caller: Caller, progress: Progress) -> str:
    """Return the model's name, waiting for a server that is not up."""
    until = time.monotonic() + arguments.outage_seconds
    for attempt in count():
        try:
            return await caller.find_model()
        except ServerError:  # it is up, and what it answers is no list of models
            raise
        except Exception as error:
            fault = fault_of_exception(error)
            if not fault.retryable:
                raise
            if time.monotonic() >= until:
                raise _absent(arguments, fault) from error
            if attempt == 0:
                progress.say(f"waiting for {arguments.endpoint.url}: {fault.message}")
            await asyncio.sleep(min(0.1 * 2**attempt, 2.0))
    raise AssertionError("unreachable")


def _absent(arguments: BatchArguments, fault: Fault) -> ServerNotReadyError:
    waited = duration(arguments.outage_seconds)
    return ServerNotReadyError(
        f"{arguments.endpoint.url} did not answer within {waited}: {fault.message}",
        hint="Is the server running, and is this its address?",
    )


def _open_journal(
    path: Path, parameters: dict[str, Any], resume: bool, progress: Progress
) -> Journal:
    file = path.with_name(path.name + ".journal")
    if path.exists() and not file.exists():
        raise DestinationError(
            f"{path} exists, and without {file.name} beside it nothing says that it is the result "
            "of such a run.",
            hint="Move it away, or choose another output=.",
        )
    journal = Journal(file, parameters, resume=resume)
    if journal.changed:
        changed = "; ".join(journal.changed)
        progress.say(
            f"starts anew, because this is not what {file} is about ({changed}); that is now "
            f"{file}.previous"
        )
    elif journal.restored:
        progress.say(f"continues: {journal.restored:,} results of an earlier run are in {file}")
    return journal


def _in_a_thread(batch: AsyncBatch) -> BatchResult:
    """Run a batch on an event loop of its own, in a thread; stop it in order on Ctrl-C and SIGTERM."""
    loop = asyncio.new_event_loop()
    outcome: list[BatchResult | BaseException] = []
    has_ended = threading.Event()  # waited for instead of the thread itself: see `signals`

    async def main() -> BatchResult:
        return await batch

    def run() -> None:
        try:
            with contextlib.closing(loop):
                outcome.append(loop.run_until_complete(main()))
                loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:  # raised again where the batch was called
            outcome.append(error)
        finally:
            has_ended.set()

    def stop() -> None:
        with contextlib.suppress(RuntimeError):  # it has just ended
            loop.call_soon_threadsafe(batch.stop)

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(run,), name="batch", daemon=True
    )
    with stopped_by_signals(stop) as interruption:
        thread.start()
        try:
            has_ended.wait()
            if interruption.number:
                batch.say_how_to_continue()
        except BaseException:  # out of a handler of the caller's, or for a second Ctrl-C
            stop()
            if not interruption.at_once:
                has_ended.wait()
            batch.say_how_to_continue()
            raise
    (result,) = outcome
    if isinstance(result, BaseException):
        raise result
    return result
