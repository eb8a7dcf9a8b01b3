"""How fast the model loader is, as ratios measured in one run on this machine.

    python dev/bench/model_download.py [--size-mib 1024] [--files 4] [--repeat 3] [--directory DIR]

Needs huggingface_hub. Three programs bring the same files from the same server, each as a whole
process from its start to its end, in turns:

* the loader, which verifies every byte against the sha256 that the hub states
* `huggingface_hub.snapshot_download` with its default of 8 workers over plain HTTP, which verifies
  nothing
* a sequential copy as KServe's `Storage._download_from_uri` makes it (`requests.get(stream=True)`
  and `shutil.copyfileobj`), one file after another, which verifies nothing

and then the loader starts once more, with the files in its cache and the server gone. The server is
`_Server` below: it speaks the hub's protocol and sends files with sendfile. All share this
machine's cores, memory and disk, so ratios mean more than rates. Peak memory is that of the process
itself (`ru_maxrss`), which does not count the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MIB = 2**20
SHA = "0123456789abcdef0123456789abcdef01234567"

SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
snapshot_download("owner/name", revision=sys.argv[1], cache_dir=sys.argv[2])
"""

SEQUENTIAL = """
import shutil, sys
from pathlib import Path
import requests
target = Path(sys.argv[1])
target.mkdir(parents=True)
for url in sys.argv[2:]:
    path = target / url.rpartition("/")[2]
    with requests.get(url, stream=True, timeout=60) as response, path.open("wb") as file:
        shutil.copyfileobj(response.raw, file)
"""


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    directory: Path
    tree: list[dict[str, Any]]

    def log_message(self, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/revision/"):
            siblings = [{"rfilename": entry["path"]} for entry in self.tree]
            self._json({"id": "owner/name", "sha": SHA, "siblings": siblings})
        elif path == f"/api/models/owner/name/tree/{SHA}":
            self._json(self.tree)
        else:
            self._file(path.rpartition("/")[2])

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self._head(200, {"Content-Length": str(len(data)), "Content-Type": "application/json"})
        self.wfile.write(data)

    def _file(self, name: str) -> None:
        entry = next(entry for entry in self.tree if entry["path"] == name)
        start = 0
        end = entry["size"]
        status = 200
        headers = {"ETag": f'"{entry["lfs"]["oid"]}"', "X-Repo-Commit": SHA}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first)
            end = min(int(last or end - 1) + 1, end)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{entry['size']}"
        self._head(status, {**headers, "Content-Length": str(end - start)})
        if self.command == "HEAD":
            return
        with (self.directory / name).open("rb") as file:
            while start < end and (
                sent := os.sendfile(self.connection.fileno(), file.fileno(), start, end - start)
            ):
                start += sent

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()


def _make_files(directory: Path, count: int, size: int) -> list[dict[str, Any]]:
    directory.mkdir()
    block, tree = os.urandom(MIB), []
    for number in range(count):
        name, digest = f"model-{number}.bin", hashlib.sha256()
        with (directory / name).open("wb") as file:
            for index in range(size // MIB):
                part = number.to_bytes(4, "little") + index.to_bytes(4, "little") + block[8:]
                file.write(part)
                digest.update(part)
        lfs = {"oid": digest.hexdigest(), "size": size, "pointerSize": 130}
        tree.append(
            {"type": "file", "path": name, "size": size, "oid": f"{number:040x}", "lfs": lfs}
        )
    return tree


def _serve(directory: Path, tree: list[dict[str, Any]]) -> tuple[int, int]:
    """Return process and port of the server, which is a process of its own."""
    handler = type("Handler", (_Server,), {"directory": directory, "tree": tree})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    process = os.fork()
    if process == 0:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (connections that are closed early)
        server.serve_forever()
    port = server.server_address[1]
    server.server_close()
    return process, port


def _measure(command: Sequence[str], environ: dict[str, str]) -> tuple[float, float]:
    """Return seconds and peak MiB of a process."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    log = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise SystemExit(f"{command[:4]} failed:\n{log}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=1024, help="of each file (%(default)s)")
    parser.add_argument("--files", type=int, default=4, help="how many (%(default)s)")
    parser.add_argument(
        "--repeat",
        type=int,
        default=3,
        help="runs of each program; the median counts (%(default)s)",
    )
    parser.add_argument("--jobs", default="8", help="of the loader (%(default)s)")
    parser.add_argument(
        "--directory", default=tempfile.gettempdir(), help="where everything goes (%(default)s)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        _compare(options, Path(name))


def _compare(options: argparse.Namespace, root: Path) -> None:
    tree = _make_files(root / "served", options.files, options.size_mib * MIB)
    server, port = _serve(root / "served", tree)
    environ = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(root / "home"),
    }
    loader = [
        sys.executable,
        "-m",
        "flytekitplugins.inference.programs.load_model",
        f"owner/name@{SHA}",
        "--once",
    ]
    loader += [
        "--jobs",
        options.jobs,
        "--publish",
        str(root / "models"),
        "--cache",
        str(root / "out"),
    ]
    urls = [f"http://127.0.0.1:{port}/owner/name/resolve/{SHA}/{entry['path']}" for entry in tree]
    commands = {
        "sequential copy": [sys.executable, "-c", SEQUENTIAL, str(root / "out"), *urls],
        "snapshot_download": [sys.executable, "-c", SNAPSHOT, SHA, str(root / "out")],
        "loader": loader,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    try:
        for _ in range(options.repeat):
            for name, command in commands.items():
                shutil.rmtree(root / "out", ignore_errors=True)
                os.sync()
                found[name].append(_measure(command, environ))
    finally:
        os.kill(server, 9)
        os.waitpid(server, 0)
    again = [_measure(loader, environ) for _ in range(max(options.repeat, 3))]
    _print(options, found, again)


def _print(
    options: argparse.Namespace,
    found: dict[str, list[tuple[float, float]]],
    again: list[tuple[float, float]],
) -> None:
    total = options.files * options.size_mib
    seconds = {name: statistics.median(value for value, _ in runs) for name, runs in found.items()}
    print(f"{options.files} files of {options.size_mib} MiB, median of {options.repeat}:")
    for name, runs in found.items():
        verified = "verified" if name == "loader" else "not verified"
        rate = total / seconds[name]
        peak = max(value for _, value in runs)
        print(
            f"  {name:18} {seconds[name]:6.2f} s  {rate:6.0f} MiB/s  peak {peak:4.0f} MiB  "
            f"{verified}"
        )
    for name in ("snapshot_download", "sequential copy"):
        print(f"loader's throughput / that of {name}: {seconds[name] / seconds['loader']:.2f}")
    print(
        "second start from the cache, no server: "
        f"{statistics.median(value for value, _ in again):.2f} s"
    )


if __name__ == "__main__":
    main()
