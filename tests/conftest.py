"""What all tests share: ports, patience, and which of them stay together on one worker."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

import pytest

import patience
import ports

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_configure(config: pytest.Config) -> None:
    """Measure before the workers start: they inherit what was measured."""
    patience.factor()


def pytest_report_header(config: pytest.Config) -> str:
    return f"patience: {patience.factor():.1f} times the time of a quiet machine"


COSTLY = ("bare_python", "pages", "vllm_server")
"""Fixtures of the session that take long to make."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share what is costly to make on one worker (`--dist loadgroup`).

    Fixtures live once in each worker that needs them. So tests with one of `COSTLY` stay together,
    and the tests of a file that has fixtures of the module; a mark `xdist_group` says what belongs
    together besides. All others go to whichever worker is free.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None and (group := _group(item)):
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_sessionfinish() -> None:
    """Close the connections that file systems keep as long as the process lives.

    They belong to loops in threads of fsspec and flytekit. At the end of the interpreter s3fs and
    gcsfs give them a tenth of a second to close; what does not manage is logged when logging cannot
    import any more: "sys.meta_path is None". A session of a loop that has ended is
    somebody's fault: it is left, and complains.
    """
    if "aiohttp" not in sys.modules:
        return
    kind = sys.modules["aiohttp"].ClientSession
    for session in [thing for thing in gc.get_objects() if type(thing) is kind]:
        if session._loop.is_running() and not session.closed:
            closing = asyncio.run_coroutine_threadsafe(session.close(), session._loop)
            closing.result(patience.patient(10))


def _group(item: pytest.Item) -> str:
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs  # noqa: B009
    for name in COSTLY:
        if name in definitions:
            return name
    scopes = {definition[-1].scope for definition in definitions.values()}
    return item.nodeid.partition("::")[0] if scopes & {"module", "package"} else ""


@pytest.fixture(scope="session")
def reserve_port() -> Callable[[], int]:
    """Return ports that nothing listens on, and that no other test gets."""
    return ports.reserve_port


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on, and that no other test gets."""
    return ports.reserve_port()
