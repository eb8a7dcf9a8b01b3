"""Measures what the clients add to a request: processor time beside the same library used bare.

    .venv/bin/python dev/bench/client.py [--requests 2000] [--rounds 5]

A server of asyncio in a process of its own answers every request at once with a short completion.
The variants take turns, so that whatever else the machine does meets them alike; the first round is
not counted. What is printed is the median over the rounds of the processor time of this process per
request, the difference and the ratio to the bare client of the same kind. The goal is 0.5 ms at
most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai

from flytekitplugins.inference.client.endpoint import Endpoint

SERVER = r"""
import asyncio, json

message = {"role": "assistant", "content": "hello"}
choice = {"index": 0, "message": message, "finish_reason": "stop"}
completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
body = json.dumps({**completion, "choices": [choice]}).encode()
head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
answer = head % len(body) + body

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(size)
            writer.write(answer)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
PATH = "/v1/chat/completions"
CONCURRENCY = 16
TIMEOUT = httpx2.Timeout(120, connect=2.0, pool=None)


def post(client: Any, count: int) -> None:
    for _ in range(count):
        assert client.post(PATH, json=BODY).status_code == 200


def chat(client: Any, count: int) -> None:
    for _ in range(count):
        assert client.chat.completions.create(**BODY).choices


def post_async(make: Callable[[], Any], count: int) -> None:
    async def work(client: Any) -> None:
        for _ in range(count // CONCURRENCY):
            assert (await client.post(PATH, json=BODY)).status_code == 200

    async def main() -> None:
        async with make() as client:
            await asyncio.gather(*(work(client) for _ in range(CONCURRENCY)))

    asyncio.run(main())


def variants(url: str) -> dict[str, list[tuple[str, Callable[[int], None]]]]:
    """Return what is compared: the bare client first."""
    plain = Endpoint(url=url)
    spoken = Endpoint(url=url, protocol="openai")
    bare = httpx2.Client(base_url=url, timeout=TIMEOUT, trust_env=False)
    ours = plain.client()
    official = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT)
    own = spoken.client()
    return {
        "httpx2, one request after the other": [
            ("bare", lambda count: post(bare, count)),
            ("Endpoint.client()", lambda count: post(ours, count)),
        ],
        f"httpx2 in asyncio, {CONCURRENCY} at a time": [
            (
                "bare",
                lambda count: post_async(
                    lambda: httpx2.AsyncClient(base_url=url, timeout=TIMEOUT), count
                ),
            ),
            ("Endpoint.async_client()", lambda count: post_async(plain.async_client, count)),
        ],
        "OpenAI's client": [
            ("bare", lambda count: chat(official, count)),
            ("Endpoint.client()", lambda count: chat(own, count)),
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what the clients add to a request.")
    parser.add_argument(
        "--requests",
        type=int,
        default=2000,
        help="requests of each variant and round (%(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (%(default)s)")
    options = parser.parse_args()
    versions = json.dumps({"httpx2": httpx2.__version__, "openai": openai.__version__})
    print(f"Python {sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} cores, {versions}")
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        for title, compared in variants(
            f"http://127.0.0.1:{server.stdout.readline().strip()}"
        ).items():
            measure(title, compared, options.requests, options.rounds)
    finally:
        server.terminate()
        server.wait()


def measure(
    title: str, compared: list[tuple[str, Callable[[int], None]]], count: int, rounds: int
) -> None:
    samples: dict[str, list[float]] = {name: [] for name, _ in compared}
    for _ in range(rounds + 1):
        for name, work in compared:
            began = time.process_time()
            work(count)
            samples[name].append((time.process_time() - began) / count)
    print(f"\n{title}")
    first = 0.0
    for name, seconds in samples.items():
        median = statistics.median(seconds[1:])
        first = first or median
        more, ratio = 1e3 * (median - first), median / first
        print(f"{name:26} {1e3 * median:6.3f} ms of CPU each  {more:+6.3f} ms  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
