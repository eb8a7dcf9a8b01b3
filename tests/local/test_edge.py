"""What `base_url` and the pod's inputs are on this machine, without starting a server."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from flytekitplugins.inference.errors import ConfigError, ServerError
from flytekitplugins.inference.flyte import local_run as edge


@dataclass(frozen=True)
class Template:
    port: int = 8000


TEMPLATE: Any = Template()
DESCRIPTION: Any = SimpleNamespace(servers={"": TEMPLATE})


def _published(port: int) -> Any:
    return edge._published(DESCRIPTION, SimpleNamespace(port={TEMPLATE.port: port}.__getitem__))  # type: ignore[arg-type]


def _port() -> int | None:
    server = edge.server_of(TEMPLATE)
    return server and server.port


def _asked_in_a_thread() -> int | None:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(_port).result()


def test_a_thread_gets_the_only_server_there_is() -> None:
    assert _port() is None
    with _published(1), _published(1):
        assert _port() == _asked_in_a_thread() == 1


def test_a_thread_that_cannot_tell_its_server_gets_none() -> None:
    barrier = threading.Barrier(2)

    def function(port: int) -> tuple[int | None, str]:
        with _published(port):
            barrier.wait(10)
            with pytest.raises(ServerError, match="2 servers here") as caught:
                _asked_in_a_thread()
            barrier.wait(10)
            return _port(), caught.value.hint

    with ThreadPoolExecutor(2) as executor:
        answers = list(executor.map(function, (1, 2)))
    assert [port for port, _ in answers] == [1, 2]
    assert "Read base_url in the function" in answers[0][1]


def test_a_server_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    """As the fixtures of asynchronous test frameworks do."""
    block = _published(1)
    contextvars.copy_context().run(block.__enter__)
    contextvars.copy_context().run(block.__exit__, None, None, None)
    assert _port() is None

    async def enter() -> Any:
        block = _published(1)
        block.__enter__()
        return block

    asyncio.run(enter()).__exit__(None, None, None)
    assert _asked_in_a_thread() is None


def test_a_home_is_needed_for_a_cache_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> None:
        raise RuntimeError("Could not determine home directory.")

    def template(*paths: str) -> Any:
        volumes = [SimpleNamespace(name=path.strip("/."), mount_path=path) for path in paths]
        server = SimpleNamespace(server=lambda: SimpleNamespace(volumes=volumes))
        return SimpleNamespace(servers={"": server})

    monkeypatch.setattr("pathlib.Path.home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert edge._caches(template("/models")) == {}
    with pytest.raises(ConfigError, match="no home directory"):
        edge._caches(template("/.cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert edge._caches(template("/models", "/.cache")) == {"cache": "/big"}
