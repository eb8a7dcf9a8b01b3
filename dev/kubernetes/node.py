"""The first process of a cluster's namespaces: starts the parts, reaps, and lets the host in.

    python -m dev.kubernetes.node RUN PROGRAMS --listener FD

`instance` starts it with `unshare`. It never ends by itself: when it is killed, the kernel kills
everything that it has started.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from .settings import BRIDGE, NODE_ADDRESS, POD_RANGE, SERVICE_ADDRESS, commands

PARTS = "parts.json"
"""What runs, below the cluster's folder: by name, the process and, once it has ended, its code."""
API_PORT = 443
READY_SECONDS = 240.0
"""How long the API server may take to answer; where the machine is busy it needs minutes."""


class Parts:
    """The parts that run.

    Args:
        run: The cluster's folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._processes: dict[str, int] = {}
        self._codes: dict[str, int] = {}
        self._lock = threading.Lock()

    def start(self, name: str, command: list[str]) -> None:
        """Start a part, whose output goes to its log."""
        with self._lock:
            with (self._run / f"logs/{name}.log").open("ab") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._run
                )
            # this process's loop waits for all children: the object would ask in vain
            process.returncode = 0
            self._processes[name] = process.pid
            self._tell()

    def reap(self) -> None:
        """Wait for processes that end, the parts' orphans too, for ever."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.1)
                continue
            with self._lock:
                names = [name for name, process in self._processes.items() if process == pid]
                for name in names:
                    self._codes[name] = os.waitstatus_to_exitcode(status)
                    self._tell()

    def _tell(self) -> None:
        parts = {
            name: {"pid": pid, "exit_code": self._codes.get(name)}
            for name, pid in self._processes.items()
        }
        partial = self._run / f"{PARTS}.partial"
        partial.write_text(json.dumps(parts))
        partial.replace(self._run / PARTS)


def prepare(run: Path) -> None:
    """Set up what the namespaces begin without: the network, and folders of their own."""
    resolver = Path("/etc/resolv.conf").resolve()
    for place in ("/run", "/var/log"):
        _command("mount", "-t", "tmpfs", "tmpfs", place)
    resolver.parent.mkdir(parents=True, exist_ok=True)  # it may have been a file in /run
    resolver.touch()
    _command("mount", "--bind", str(run / "resolv.conf"), str(resolver))
    _command("mount", "--make-rshared", "/")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _command("ip", "link", "set", "lo", "up")
    _command("ip", "address", "add", f"{SERVICE_ADDRESS}/32", "dev", "lo")
    _command("ip", "link", "add", BRIDGE, "type", "bridge")
    length = POD_RANGE.partition("/")[2]
    _command("ip", "address", "add", f"{NODE_ADDRESS}/{length}", "dev", BRIDGE)
    _command("ip", "link", "set", BRIDGE, "up")
    # the API server looks for the route to the world to find its address
    _command("ip", "route", "add", "default", "dev", BRIDGE, "src", NODE_ADDRESS)


def start(parts: Parts, run: Path, programs: Path) -> None:
    """Start all parts; those that need the API server, when it answers."""
    os.environ["PATH"] = f"{programs}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for name, command in commands(run, programs).items():
        if name == "kube-controller-manager":
            _await_api()
        parts.start(name, command)


async def forward(listener: socket.socket) -> None:
    """Lead each connection from the host to the API server."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", API_PORT)
            await asyncio.gather(
                _copy(reader, inner_writer), _copy(inner_reader, writer), return_exceptions=True
            )
        writer.close()

    server = await asyncio.start_server(lead, sock=listener)
    await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def _await_api() -> None:
    context = ssl._create_unverified_context()
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            address = f"https://127.0.0.1:{API_PORT}/readyz"
            with urllib.request.urlopen(address, context=context, timeout=5):
                return
        time.sleep(0.1)


def _command(*words: str) -> None:
    subprocess.run(words, check=True, env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def main() -> None:
    parser = argparse.ArgumentParser(prog="dev.kubernetes.node")
    parser.add_argument("run", type=Path)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--listener", type=int, required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    prepare(options.run)
    parts = Parts(options.run)
    threading.Thread(target=start, args=(parts, options.run, options.programs), daemon=True).start()
    listener = socket.socket(fileno=options.listener)
    threading.Thread(target=lambda: asyncio.run(forward(listener)), daemon=True).start()
    parts.reap()


if __name__ == "__main__":
    main()
