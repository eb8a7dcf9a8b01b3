"""Opens a run from its checked arguments, and builds its result."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

from ...errors import DestinationError, ServerError, ServerNotReadyError
from ...facts.wording import duration
from ..report.collect import note_batch
from .batch_options import BatchArguments
from .caller import Caller
from .checkpoint import CheckpointedJournal, current_checkpoint
from .faults import Fault, fault_of_exception
from .identity import code_digest, incomparable
from .journal import Journal
from .limiter import Limiter
from .local_paths import local_path
from .output import OutputFile, open_output
from .progress import Progress
from .recorder import Files
from .result import BatchResult
from .rows import open_rows
from .runner import Runner, RunParts
from .threads import Worker
from .work import FunctionWork, HttpWork, as_work


@contextlib.asynccontextmanager
async def open_run(
    arguments: BatchArguments,
) -> AsyncIterator[tuple[Runner, Callable[[], BatchResult]]]:
    """Open everything that a run needs, and close it afterwards.

    Yields:
        The run, and a function that builds its result, during the run or after it.

    Raises:
        InferenceError: As `batch` says.
    """
    async with contextlib.AsyncExitStack() as stack:
        work = as_work(arguments.work)
        source = open_rows(arguments.rows)
        progress = Progress(shown=arguments.progress)
        directory = None
        if arguments.output is None:
            # the result holds it, so that it is deleted together with the result
            directory = tempfile.TemporaryDirectory(prefix="inference-batch-")
            path = Path(directory.name, "output.jsonl")
        else:
            path = local_path(
                "output",
                arguments.output,
                "Write a local file, and upload it when the batch is over: in a task, return "
                "FlyteFile(str(result.path), remote_path=…).",
            )
        caller = Caller(arguments.endpoint, work, deadline=arguments.deadline)
        stack.push_async_callback(caller.aclose)
        parameters = await _parameters(arguments, caller, work, progress)
        disk = Worker("batch-disk")
        uploader = Worker("batch-checkpoint")
        # a stack closes in reverse, so what uses a thread is registered after the thread
        stack.callback(disk.close)
        stack.callback(uploader.close)
        journal = await disk.call(_open_journal, path, parameters, arguments.resume, progress)
        stack.callback(journal.close)
        checkpoint = _open_checkpoint(arguments, journal, path, parameters)
        if checkpoint is not None:
            stack.callback(checkpoint.close)
            # before any row is read, because `Journal.register` looks for its result then
            if restored := await disk.call(checkpoint.restore):
                progress.say(
                    f"continues: {restored:,} results of an earlier attempt are in Flyte's "
                    "checkpoint"
                )
        is_vectors = isinstance(work, HttpWork) and work.kind == "embeddings"
        output: OutputFile = await disk.call(lambda: open_output(path, vectors=is_vectors))
        parts = RunParts(
            endpoint=arguments.endpoint,
            caller=caller,
            limiter=Limiter(arguments.max_concurrency),
            source=source,
            id_source=arguments.id,
            files=Files(journal, output, disk),
            checkpoint=checkpoint,
            uploader=uploader,
            progress=progress,
            max_retries=arguments.max_retries,
            max_failures=arguments.max_failures,
            allow_all_failed=arguments.allow_all_failed,
            outage_seconds=arguments.outage_seconds,
        )
        runner = Runner(parts, _note)
        yield runner, lambda: _result_of(runner, directory)


def _note(runner: Runner) -> None:
    """Show the state of the run in the report on its server."""
    note_batch(runner.parts.endpoint.url, _result_of(runner).summary())


def _result_of(runner: Runner, directory: Any = None) -> BatchResult:
    counts = runner.counts
    return BatchResult(
        path=runner.parts.files.output.path,
        rows=counts.finished,
        succeeded=counts.succeeded,
        failed=counts.failed,
        resumed=counts.resumed,
        answered=counts.answered,
        retried=counts.retried,
        duration=runner.monitor.elapsed,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        most_in_flight=runner.parts.limiter.most_in_flight,
        max_concurrency=runner.parts.limiter.ceiling,
        concurrency=tuple(runner.monitor.series.points),
        failures=tuple(runner.recorder.failures),
        _directory=directory,
    )


async def _parameters(
    arguments: BatchArguments, caller: Caller, work: HttpWork | FunctionWork, progress: Progress
) -> dict[str, Any]:
    """Return everything that the answers depend on; a run with other parameters starts anew."""
    model = await _find_model(arguments, caller, progress)
    if arguments.resume:
        _tell_incomparable(arguments, progress)
    id_source = code_digest(arguments.id) if callable(arguments.id) else arguments.id
    parameters = {**work.identity(), "model": model, "id": id_source}
    # two models may be served under one name
    about = getattr(arguments.endpoint, "about", None)
    return {**parameters, "model_source": about.model} if about and about.model else parameters


def _tell_incomparable(arguments: BatchArguments, progress: Progress) -> None:
    for name, function in (("work", arguments.work), ("id", arguments.id)):
        values = incomparable(function) if callable(function) else []
        if values:
            what = f"{name}= holds {', '.join(values[:5])}, which cannot be compared between runs"
            progress.say(
                f"{what}, so the same call starts anew; give texts, numbers or a global instead"
            )


async def _find_model(arguments: BatchArguments, caller: Caller, progress: Progress) -> str:
    """Return the model's name; wait for a server that is not up."""
    until = time.monotonic() + arguments.outage_seconds
    for attempt in count():
        try:
            return await caller.find_model()
        except ServerError:  # the server is up, but its answer is not a list of models
            raise
        except Exception as error:
            fault = fault_of_exception(error)
            if fault.kind == "misconfigured":
                raise ServerError(f"{arguments.endpoint.url}: {fault.message}") from error
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
            f"{path} exists without {file.name} beside it, so it may not be the result of such a "
            "run.",
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


def _open_checkpoint(
    arguments: BatchArguments, journal: Journal, path: Path, parameters: dict[str, Any]
) -> CheckpointedJournal | None:
    """Return the journal's copy in the checkpoint of the running task; None without one."""
    flyte = current_checkpoint() if arguments.resume else None
    if flyte is None:
        return None
    # without output=, the temporary file has a name that another batch's output may have
    name = json.dumps(
        [path.name if arguments.output else None, parameters], sort_keys=True, default=repr
    )
    return CheckpointedJournal(flyte, journal, name)
