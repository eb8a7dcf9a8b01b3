from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from client.batch.stub import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    server.start()
    yield server
    server.end()
    thread.join(10)
