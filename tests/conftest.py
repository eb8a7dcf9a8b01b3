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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests that share what is costly to make on one worker (`--dist loadgroup`).

    A fixture of a module or a session lives once in each worker that needs it. Those of `tests` are
    made once for a module, so their users stay together by file; a mark `xdist_group` says which
    files, or which tests of one, belong together besides.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None and _shares(item):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def pytest_sessionfinish() -> None:
    """Close the connections that fsspec's file systems keep as long as the process lives.

    At the end of the interpreter they have a tenth of a second to close (s3fs, gcsfs); whatever does
    not manage is logged when logging cannot import any more: "sys.meta_path is None".
    """
    if not {"aiohttp", "fsspec.asyn"} <= sys.modules.keys():
        return
    kind, loop = sys.modules["aiohttp"].ClientSession, sys.modules["fsspec.asyn"].loop[0]
    for session in [thing for thing in gc.get_objects() if type(thing) is kind]:
        if session._loop is loop and not session.closed:
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(patience.patient(10))


def _shares(item: pytest.Item) -> bool:
    definitions = getattr(item, "_fixtureinfo").name2fixturedefs.values()  # noqa: B009
    return any(definition[-1].scope in ("module", "package") for definition in definitions)


@pytest.fixture(scope="session")
def reserve_port() -> Callable[[], int]:
    """Return ports that nothing listens on, and that no other test gets."""
    return ports.reserve_port


@pytest.fixture
def free_port() -> int:
    """A port that nothing listens on, and that no other test gets."""
    return ports.reserve_port()
