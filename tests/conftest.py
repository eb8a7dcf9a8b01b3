"""What all tests share: ports, patience, and which of them stay together on one worker."""

from __future__ import annotations

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
