"""How fast the input downloader is, as ratios measured in one run on this machine.

    python dev/bench/download_inputs.py [--size-mib 2048] [--files 200] [--repeat 3] [--latency-ms
    20]

Needs what the tests need (flytekit, moto). Three questions:

* many small files: the whole program, from its start to its end, against `FlyteFile.download()` one
  after another in a process that has flytekit imported already. The server is moto (in memory)
  behind a proxy that holds every request back for the latency.
* one large file: the whole program against the whole process of `s3fs.get` and of a plain client
  with concurrent ranges (http.client, 8 threads, no signature, no resume). The server is
  `_RangeServer` below, not a real S3: it answers HEAD and GET with ranges and ETags from a file
  with sendfile, and does not check signatures. moto would be the bottleneck. Once it answers at
  once, and once after the latency, as a store over a network does.
* start: from the start of the process to the first request for a file, against `import flytekit`.

All programs and servers share this machine's cores, so ratios mean more than rates.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SMALL_BYTES = 256 * 1024

MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""

SEQUENTIAL = """
import sys, time
from flytekit import FlyteContextManager
from flytekit.types.file import FlyteFile
files = [FlyteFile(f"s3://bucket/small/{i}") for i in range(int(sys.argv[1]))]
begun = time.perf_counter()
for file in files:
    file.download()
print(time.perf_counter() - begun)
"""

S3FS_GET = """
import sys, time
import s3fs
fs = s3fs.S3FileSystem(key="k", secret="s", client_kwargs={"endpoint_url": sys.argv[1]})
begun = time.perf_counter()
fs.get("s3://bucket/large", sys.argv[2])
print(time.perf_counter() - begun)
"""

RANGES = """
import http.client, os, sys, threading, time
begun = time.perf_counter()
from urllib.parse import urlsplit
host, target = urlsplit(sys.argv[1]).netloc, sys.argv[2]
connection = http.client.HTTPConnection(host)
connection.request("HEAD", "/bucket/large")
size = int(connection.getresponse().headers["Content-Length"])
file = os.open(target, os.O_RDWR | os.O_CREAT)
os.posix_fallocate(file, 0, size)
starts, lock = iter(range(0, size, 16 << 20)), threading.Lock()
def work():
    connection, buffer = http.client.HTTPConnection(host), memoryview(bytearray(1 << 20))
    while True:
        with lock:
            start = next(starts, None)
        if start is None:
            return
        end = min(size, start + (16 << 20))
        connection.request("GET", "/bucket/large", headers={"Range": f"bytes={start}-{end - 1}"})
        response = connection.getresponse()
        while count := response.readinto(buffer):
            os.pwrite(file, buffer[:count], start)
            start += count
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
os.fchmod(file, 0o644)
print(time.perf_counter() - begun)
"""


class Proxy:
    """A TCP proxy that delays what clients send.

    A request fits into one packet, so the delay is the latency of each request.
    """

    def __init__(self, port: int, latency: float) -> None:
        self._target, self._latency = port, latency
        self.port = 0
        self.requests = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._pump(reader, other_writer, self._latency),
            self._pump(other_reader, writer, 0),
            return_exceptions=True,
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
    ) -> None:
        while data := await reader.read(1 << 18):
            if delay:
                self.requests += 1
                await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
        writer.close()


class _RangeServer(ThreadingHTTPServer):
    """HEAD and GET, with ranges, of one file under any path; notes when it was asked."""

    daemon_threads = True

    def __init__(self, path: Path, latency: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _RangeHandler)
        self.path = path
        self.size = path.stat().st_size
        self.latency = latency
        self.asked: list[float] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _RangeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _RangeServer

    def log_message(self, *args: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.server.asked.append(time.time())
        time.sleep(self.server.latency)
        if "list-type" in self.path:  # s3fs asks whether it is a directory
            empty = (
                b"<ListBucketResult><KeyCount>0</KeyCount>"
                b"<IsTruncated>false</IsTruncated></ListBucketResult>"
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(empty)))
            self.end_headers()
            self.wfile.write(empty)
            return
        size = self.server.size
        first, _, last = self.headers.get("Range", "bytes=-").removeprefix("bytes=").partition("-")
        start = int(first or 0)
        end = min(int(last or size - 1) + 1, size)
        self.send_response(206 if first else 200)
        self.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
        self.send_header("Content-Length", str(end - start))
        if first:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.end_headers()
        if body:
            with self.server.path.open("rb") as file, contextlib.suppress(ConnectionError):
                while start < end:
                    start += os.sendfile(
                        self.connection.fileno(), file.fileno(), start, min(end - start, 1 << 20)
                    )


def run(arguments: Sequence[str], environ: dict[str, str]) -> tuple[float, float, str]:
    """Return seconds, peak resident MiB and what was printed."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        arguments,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    if status:
        raise SystemExit(f"{arguments[:3]} ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1024, output


def inputs_pb(path: Path, uris: Sequence[str]) -> Path:
    from flyteidl.core.literals_pb2 import LiteralMap

    message = LiteralMap()
    message.literals["files"].collection.SetInParent()
    for uri in uris:
        message.literals["files"].collection.literals.add().scalar.blob.uri = uri
    path.write_bytes(message.SerializeToString())
    return path


def downloader(root: Path, source: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "flytekitplugins.inference.programs.download_inputs", str(source)),
        *("--output", str(root / "inputs.json"), "--directory", str(root / "inputs")),
    ]


def variables(endpoint: str) -> dict[str, str]:
    return {
        "FLYTE_AWS_ENDPOINT": endpoint,
        "FLYTE_AWS_ACCESS_KEY_ID": "k",
        "FLYTE_AWS_SECRET_ACCESS_KEY": "s",
    }


def small(root: Path, count: int, repeat: int, latency: float) -> None:
    import botocore.session

    moto = subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert moto.stdout is not None
    port = int(moto.stdout.readline())
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="k",
        aws_secret_access_key="s",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    for index in range(count):
        client.put_object(Bucket="bucket", Key=f"small/{index}", Body=os.urandom(SMALL_BYTES))
    source = inputs_pb(root / "small.pb", [f"s3://bucket/small/{index}" for index in range(count)])
    environ = variables(f"http://127.0.0.1:{Proxy(port, latency).port}")
    ours = []
    theirs = []
    direct = []
    for turn in range(repeat):
        ours.append(run(downloader(root / f"small-{turn}", source), environ)[0])
        theirs.append(float(run([sys.executable, "-c", SEQUENTIAL, str(count)], environ)[2]))
        direct.append(
            run(downloader(root / f"direct-{turn}", source), variables(f"http://127.0.0.1:{port}"))[
                0
            ]
        )
    moto.kill()
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(
        f"small files: {count} of {SMALL_BYTES // 1024} KiB, {latency * 1000:g} ms for each "
        "request, moto in memory"
    )
    print(f"  program, whole process       {statistics.median(ours):7.2f} s")
    print(
        f"  the same without latency     {statistics.median(direct):7.2f} s  (what moto and this "
        "machine cost)"
    )
    print(
        f"  FlyteFile.download() in turn {statistics.median(theirs):7.2f} s  (without import "
        "flytekit)"
    )
    print(f"  ratio                        {ratio:7.1f} x  (target: at least 8)")


def large(root: Path, size_mib: int, repeat: int, latencies: Sequence[float]) -> None:
    path = root / "large.bin"
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for index in range(size_mib):
            file.write(index.to_bytes(8, "big") + block[8:])
    for latency in latencies:
        _large(root, _RangeServer(path, latency), size_mib, repeat)


def _large(root: Path, server: _RangeServer, size_mib: int, repeat: int) -> None:
    path = server.path
    source = inputs_pb(root / "large.pb", ["s3://bucket/large"])
    target = root / "out"
    arrived = root / "large"
    commands = {
        "program": downloader(arrived, source),
        "s3fs.get": [sys.executable, "-c", S3FS_GET, server.url, str(target)],
        "ranges": [sys.executable, "-c", RANGES, server.url, str(target)],
    }
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(repeat):
        for name, command in commands.items():
            seconds, peak, output = run(command, variables(server.url))
            result = arrived / "inputs/files.0/large" if name == "program" else target
            subprocess.run(["cmp", path, result], check=True)
            if name == "program":
                output = str(
                    json.loads((arrived / "inputs.manifest.json").read_text())["files"][0][
                        "seconds"
                    ]
                )
            results[name].append((seconds, peak, float(output)))
            subprocess.run(["rm", "-rf", arrived, target], check=True)
    delay = f"{server.latency * 1000:g} ms for each request"
    print(f"one file of {size_mib} MiB, {delay}, range server with sendfile (no real S3)")
    whole = {
        name: statistics.median(value[0] for value in values) for name, values in results.items()
    }
    alone = {
        name: statistics.median(value[2] for value in values) for name, values in results.items()
    }
    for name, values in results.items():
        print(
            f"  {name:9} whole process {whole[name]:6.2f} s, transfer alone {alone[name]:6.2f} s"
            f" ({size_mib / alone[name]:5.0f} MiB/s), peak "
            f"{max(value[1] for value in values):5.0f} MiB"
        )
    for what, times in (("whole process", whole), ("transfer alone", alone)):
        best = min(times["s3fs.get"], times["ranges"])
        print(
            f"  ratio, {what:14} {best / times['program']:5.2f} x of the fastest (target: at "
            "least 0.9)"
        )


def start(root: Path, repeat: int) -> None:
    path = root / "tiny.bin"
    path.write_bytes(b"x")
    server = _RangeServer(path)
    source = inputs_pb(root / "tiny.pb", ["s3://bucket/tiny"])
    ours, theirs = [], []
    for turn in range(repeat):
        server.asked.clear()
        begun = time.time()
        run(downloader(root / f"tiny-{turn}", source), variables(server.url))
        ours.append(server.asked[0] - begun)
        theirs.append(run([sys.executable, "-c", "import flytekit"], {})[0])
    ratio = statistics.median(ours) / statistics.median(theirs)
    print("start")
    print(f"  to the first request {statistics.median(ours):7.2f} s")
    print(f"  import flytekit      {statistics.median(theirs):7.2f} s")
    print(f"  ratio                {ratio:7.2f} x  (target: at most 0.4)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size-mib", type=int, default=2048)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--only", choices=["small", "large", "start"])
    parser.add_argument("--directory", help="where the files go; needs three times the size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        root = Path(directory)
        if options.only in (None, "start"):
            start(root, max(options.repeat, 3))
        if options.only in (None, "small"):
            small(root, options.files, options.repeat, options.latency_ms / 1000)
        if options.only in (None, "large"):
            large(root, options.size_mib, options.repeat, (0.0, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
