"""Which ports pods get, with several processes at a time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flytekitplugins.inference.errors import UnsupportedError
from flytekitplugins.inference.local import ports as local_ports
from flytekitplugins.inference.local.ports import release_ports, reserve_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OTHER = """
import sys
from flytekitplugins.inference.local.ports import reserve_ports
print(reserve_ports([int(sys.argv[1])])[int(sys.argv[1])], flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture
def other(free_port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that has reserved `free_port` for a server that does not listen yet."""
    command = [sys.executable, "-c", OTHER, str(free_port)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) == free_port
        yield process
        process.kill()


def test_a_port_of_another_process_is_taken_until_that_ends(
    free_port: int, other: subprocess.Popen[str]
) -> None:
    ports = reserve_ports([free_port])
    assert ports[free_port] != free_port
    release_ports(ports)
    other.kill()
    other.wait()
    ports = reserve_ports([free_port])
    assert ports == {free_port: free_port}
    release_ports(ports)


def test_released_ports_leave_nothing(free_port: int, tmp_path: Path) -> None:
    ports = reserve_ports([free_port])
    again = reserve_ports([free_port])
    assert again[free_port] != free_port
    assert len(list(tmp_path.iterdir())) == 2
    release_ports(again)
    release_ports(ports)
    release_ports(ports)
    assert list(tmp_path.glob("inference-pod-*")) == []


def test_a_forked_process_keeps_no_port(free_port: int) -> None:
    ports = reserve_ports([free_port])
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    release_ports(ports)
    assert reserve_ports([free_port]) == ports
    release_ports(ports)
    os.write(go[1], b"x")
    os.waitpid(child, 0)
    for end in (*ready, *go):
        os.close(end)


def test_a_port_that_is_busy_for_ipv6_only_is_busy(free_port: int) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as server:
        try:
            server.bind(("::1", free_port))
        except OSError:
            pytest.skip("this machine has no ::1")
        server.listen()
        ports = reserve_ports([free_port])
        assert ports[free_port] != free_port
        release_ports(ports)


def test_a_busy_port_is_replaced_with_one_that_no_connection_gets(free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        ports = reserve_ports([free_port])
    assert 28000 <= ports[free_port] < 32768, "the kernel gives 32768 and more to connections"
    release_ports(ports)


def test_when_no_port_is_left_nothing_stays_reserved(
    reserve_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, busy = reserve_port(), reserve_port()
    monkeypatch.setattr(local_ports, "_CHOICE", range(busy, busy + 1))
    with (
        socket.create_server(("127.0.0.1", busy)),
        pytest.raises(UnsupportedError, match=f"Every port from {busy} to {busy} is in use"),
    ):
        reserve_ports([one, busy])
    ports = reserve_ports([one])
    assert ports == {one: one}
    release_ports(ports)
