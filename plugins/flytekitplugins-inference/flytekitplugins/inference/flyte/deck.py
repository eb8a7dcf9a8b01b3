"""The report in a task's Deck: published while the function runs, completed when it ends or raises.

Only tasks with `enable_deck=True` have it; it costs the others nothing. All work happens in its own
thread. Errors there are logged once and never reach the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flytekit import Deck, FlyteContextManager
from flytekit.core.context_manager import ExecutionState

from ..client.report.metrics import sampling
from ..client.report.report_files import JSON_NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from ..client.endpoint import Endpoint
    from ..client.report import Report
    from ..sidecar_template import PodDescription

__all__ = ["DECK_NAME", "async_reporting", "reporting"]

DECK_NAME = "Inference"
FIRST_SECONDS = 5.0
"""Time until the first page, so the Deck of a running task is not empty."""
INTERVAL_SECONDS = 20.0
COST_SHARE = 0.03
"""Share of the time that pages may take: a page of 2 s is followed by a pause of 67 s."""
LAST_SECONDS = 90.0
"""Maximum time that the task's end waits for the last page, which takes about two seconds."""

_logger = logging.getLogger(__name__)


class _InferenceDeck(Deck):
    """A Deck whose page is replaced as a whole; flytekit's own only appends."""

    page = ""

    @property
    def html(self) -> str:
        """The newest page."""
        return self.page


class _Writer:
    """Writes the report of one run of a task's function.

    Args:
        endpoints: Returns the servers' endpoints.
    """

    def __init__(self, endpoints: Callable[[], list[Endpoint]]) -> None:
        self._endpoints = endpoints()
        self._is_remote = _is_in_task()
        self._deck = _InferenceDeck(DECK_NAME)
        self._over = threading.Event()
        self._written = threading.Event()
        self._error = ""
        # publishing looks for the task's parameters in the context, which a new thread lacks
        context = contextvars.copy_context()
        threading.Thread(
            target=context.run, args=(self._run,), name="inference-report", daemon=True
        ).start()

    def finish(self, error: BaseException | None) -> None:
        """Request the last page, and wait for it."""
        # flytekit before 1.14 wraps what the function raised
        wrapped = getattr(error, "value", None)
        error = wrapped if isinstance(wrapped, BaseException) else error
        self._error = f"{type(error).__name__}: {error}" if error is not None else ""
        self._over.set()
        self._written.wait(LAST_SECONDS)

    def _run(self) -> None:
        try:
            with contextlib.ExitStack() as stack:
                for endpoint in self._endpoints:
                    stack.enter_context(sampling(endpoint))
                self._write_until_over()
            self._write_last()
        except Exception:  # a report must not end a task
            _logger.warning("The report on inference is incomplete.", exc_info=True)
        finally:
            self._written.set()

    def _write_until_over(self) -> None:
        pause = FIRST_SECONDS
        while not self._over.wait(pause):
            began = time.monotonic()
            # in a local run each publication would write another file, which nobody looks for
            if self._is_remote:
                self._deck.page = self._report(running=True).fragment
                _publish()
            pause = max(INTERVAL_SECONDS, (time.monotonic() - began) / COST_SHARE)

    def _write_last(self) -> None:
        report = self._report(running=False)
        self._deck.page = report.fragment
        files = FlyteContextManager.current_context().file_access
        directory = Path(files.get_random_local_directory())
        page = report.write(directory)
        if not self._is_remote:
            _logger.info("The report on inference is in %s", page)
            return
        prefix = FlyteContextManager.current_context().user_space_params.output_metadata_prefix
        files.put_data(str(directory / JSON_NAME), f"{prefix.rstrip('/')}/{JSON_NAME}")
        # older flytekit writes the Deck only if the function returns
        if self._error:
            _publish()

    def _report(self, *, running: bool) -> Report:
        from ..client.report import report

        return report(self._endpoints, running=running, error=self._error)


@contextlib.contextmanager
def reporting(description: PodDescription) -> Iterator[None]:
    """Report on a description's servers while the block runs.

    The numbers are also written as `inference-report.json` beside the task's outputs (and the
    Deck's own `deck.html`): Flyte's output prefix of the run, where each attempt has its own.
    Outside of a cluster both files are in a temporary directory, which is logged.

    Args:
        description: The pod; its servers run.
    """
    writer = _start_writer(description)
    if writer is None:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        writer.finish(error)


@contextlib.asynccontextmanager
async def async_reporting(description: PodDescription) -> AsyncIterator[None]:
    """Like `reporting`, without blocking the event loop."""
    writer = _start_writer(description)
    if writer is None:
        yield
        return
    error: BaseException | None = None
    try:
        yield
    except BaseException as caught:
        error = caught
        raise
    finally:
        await asyncio.to_thread(writer.finish, error)


def _start_writer(description: PodDescription) -> _Writer | None:
    try:
        return _Writer(lambda: [server.endpoint for server in description.servers.values()])
    except Exception:  # a report must not end a task
        _logger.warning("There is no report on inference.", exc_info=True)
        return None


def _is_in_task() -> bool:
    state = FlyteContextManager.current_context().execution_state
    return state is not None and state.mode == ExecutionState.Mode.TASK_EXECUTION


def _publish() -> None:
    """Upload the current Deck; older flytekit cannot, and writes it once at the end."""
    publish = getattr(Deck, "publish", None)
    if publish is not None:
        publish()
