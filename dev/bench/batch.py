"""Measures `batch`: its speed, its cost, its memory, and what a kill costs.

    .venv/bin/python dev/bench/batch.py --what knee|cost|poison|million|kill [--full] [--only vllm]

Each is one run, and what counts are ratios within it; without --full the inputs are smaller. All
programs share this machine's cores.

    knee      Servers: llama.cpp with 4 and 16 parallel slots (`dev/servers llamacpp`), vLLM on this
              CPU when .venv/servers/vllm is there (`dev/servers vllm`), and a stub with 48 slots.
              On each: a sequential loop, fixed concurrencies, and `batch`, which gets none. The
              fixed ones share its code, so only the concurrency differs. Also after which share of
              its rows it had a limit that reaches 95 % of the best.
    cost      Processor time per request of `batch`, bare aiohttp and httpx with as many in flight,
              against a stub.
    poison    A stub that refuses one row in a hundred for ever, or never answers it, against the
              same stub without such rows, in turns.
    million   The memory of a process that sends a million rows to a stub.
    kill      `kill -9` at random moments, then a last run: whether all rows are there once and in
              order, and how many answers were asked for twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from flytekitplugins.inference.client.batch import batch, chat, opening
from flytekitplugins.inference.client.batch.limiter import Limiter
from flytekitplugins.inference.facts.metric_names import KNOWN_NAMES, MetricNames

ROOT = Path(__file__).resolve().parent.parent.parent
SERVERS = ROOT / ".venv" / "servers"
WORK = chat(max_tokens=16, temperature=0.0, ignore_eos=True)


@dataclass(frozen=True)
class Endpoint:
    url: str
    model: str = ""
    protocol: str = "openai"
    health_url: str | None = None
    metrics_url: str | None = None
    metric_names: MetricNames = field(default_factory=lambda: KNOWN_NAMES)
    api_key: str = ""

    def async_client(self, **options: Any) -> None:
        return None


def prompts(rows: int) -> Iterator[str]:
    return (
        f"the quick brown fox jumps over the lazy dog, number {number}" for number in range(rows)
    )


# The stub: HTTP by hand, so that it costs less than its clients


class Stub(asyncio.Protocol):
    seconds: ClassVar[float]
    """That an answer takes."""
    slots: ClassVar[int]
    """Answers that are made at once; further requests wait."""
    busy: ClassVar[int] = 0
    queue: ClassVar[list[Stub]] = []
    answered: ClassVar[list[str]] = []
    """The prompts of all answers, as they were sent."""
    remembers: ClassVar[bool]
    poison: ClassVar[str]
    """What happens to one row in a hundred: "", "refused" or "unanswered"."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        fields = dict(line.lower().partition(b": ")[::2] for line in head.split(b"\r\n")[1:])
        if not separator or len(body) < int(fields.get(b"content-length", b"0")):
            return
        self.received = b""
        if head.startswith(b"GET /answered"):
            self.send(Stub.answered)
        elif head.startswith(b"GET"):
            self.send({"data": [{"id": "stub"}]})
        else:
            self.prompt = json.loads(body)["messages"][-1]["content"]
            if self.prompt.endswith("50") and Stub.poison:
                self.reject()
            else:
                Stub.queue.append(self)
                Stub.begin()

    def reject(self) -> None:
        if Stub.poison == "refused":
            head = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
            self.transport.write(head.encode())

    @staticmethod
    def begin() -> None:
        while Stub.queue and Stub.busy < Stub.slots:
            request = Stub.queue.pop(0)
            if Stub.seconds:
                Stub.busy += 1
                asyncio.get_running_loop().call_later(Stub.seconds, request.end)
            else:
                request.answer()

    def end(self) -> None:
        Stub.busy -= 1
        self.answer()
        Stub.begin()

    def answer(self) -> None:
        if self.transport.is_closing():
            return
        if Stub.remembers:
            Stub.answered.append(self.prompt)
        choice = {
            "message": {"role": "assistant", "content": f"answer to {self.prompt}"},
            "finish_reason": "stop",
        }
        self.send({"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 16}})

    def send(self, value: Any) -> None:
        body = json.dumps(value).encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            f"{len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)


async def serve(seconds: float, slots: int, remembers: bool, poison: str) -> None:
    Stub.seconds = seconds
    Stub.slots = slots
    Stub.remembers = remembers
    Stub.poison = poison
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def stub(
    *, seconds: float = 0.0, slots: int = 10**9, remembers: bool = False, poison: str = ""
) -> Iterator[str]:
    arguments = json.dumps([seconds, slots, remembers, poison])
    command = [sys.executable, __file__, "--serve", arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


# Real servers


@contextmanager
def running(
    command: list[str], port: int, patience: float, environ: dict[str, str]
) -> Iterator[str]:
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environ})
        try:
            until = time.monotonic() + patience
            while not is_ready(f"http://127.0.0.1:{port}/health"):
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise SystemExit(f"{command[0]} did not start:\n{log.read()[-3000:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def model(server: str, kind: str, directory: Path) -> Path:
    maker = [
        str(SERVERS / server / "bin" / "python"),
        str(ROOT / "tests" / "live" / "models.py"),
        kind,
        str(directory),
    ]
    subprocess.run(maker, check=True)
    return directory


@contextmanager
def llamacpp(slots: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        file = model("llamacpp", "llama-gguf", Path(directory)) / "model.gguf"
        command = (
            f"{SERVERS}/llamacpp/bin/llama-server --model {file} --host 127.0.0.1 --port "
            "28341 --threads 1"
        )
        command += (
            f" --parallel {slots} --ctx-size {256 * slots} --threads-http {2 * slots + 8} "
            "--cache-ram 0"
        )
        with running(command.split(), 28341, 60, {}) as url:
            yield url


@contextmanager
def vllm() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        command = (
            f"{SERVERS}/vllm/bin/vllm serve {model('vllm', 'llama', Path(directory))} "
            "--served-model-name tiny"
        )
        command += " --host 127.0.0.1 --port 28342 --max-model-len 256 --enforce-eager"
        environ = (
            "HF_HUB_OFFLINE=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind "
            "VLLM_NO_USAGE_STATS=1"
        )
        environ += " DO_NOT_TRACK=1"
        with running(
            command.split(), 28342, 300, dict(pair.split("=") for pair in environ.split())
        ) as url:
            yield url


# knee


class FixedLimiter(Limiter):
    """What `batch` has instead of its limiter when a concurrency is given."""

    fixed: ClassVar[int]

    @property
    def limit(self) -> int:
        return self.fixed


class TracedLimiter(Limiter):
    """The limiter, with what its limit was at each answer."""

    trace: ClassVar[list[int]]

    def answered(self, *arguments: Any, **options: Any) -> None:
        super().answered(*arguments, **options)
        self.trace.append(self.limit)


def measure(url: str, rows: int, fixed: int | None = None) -> float:
    """Return rows per second."""
    FixedLimiter.fixed, TracedLimiter.trace = fixed or 0, []
    opening.Limiter = FixedLimiter if fixed else TracedLimiter  # type: ignore[attr-defined]
    began = time.perf_counter()
    result = batch(Endpoint(url), prompts(rows), work=WORK, deadline=600, progress=False)
    if result.failed:
        raise SystemExit(f"{result.failed} of {rows} rows failed: {result.failures[0]}")
    return rows / (time.perf_counter() - began)


def knee(full: bool, only: str) -> None:
    servers: list[tuple[str, Callable[[], Any], int]] = [
        ("stub, 48 slots", lambda: stub(seconds=0.1, slots=48), 9600 if full else 4800)
    ]
    if (SERVERS / "llamacpp").exists():
        for slots in (4, 16):
            servers.append(
                (f"llama.cpp, {slots} slots", partial(llamacpp, slots), 6000 if full else 2000)
            )
    else:
        print("knee: no llama.cpp here; install it by dev/servers llamacpp")
    if (SERVERS / "vllm").exists():
        servers.append(("vLLM on this CPU", vllm, 8000 if full else 3000))
    else:
        print("knee: no vLLM here; install it by dev/servers vllm")
    for name, start, rows in (server for server in servers if only.lower() in server[0].lower()):
        with start() as url:
            measure(url, 100)  # warm
            compare(name, url, rows)


def compare(name: str, url: str, rows: int) -> None:
    sequential = measure(url, max(rows // 20, 50), 1)
    sweep: dict[int, float] = {}
    for fixed in (2, 4, 8, 16, 32, 48, 64, 128, 256):
        sweep[fixed] = measure(url, max(rows // 5, 8 * fixed), fixed)
    best = max(sweep, key=lambda fixed: sweep[fixed])
    enough = min(fixed for fixed, rate in sweep.items() if rate >= 0.95 * sweep[best])
    # in turns, so that whatever else this machine does meets both alike
    best_rates = []
    batch_rates = []
    shares = []
    for _ in range(5):
        best_rates.append(measure(url, rows, best))
        batch_rates.append(measure(url, rows))
        trace = TracedLimiter.trace
        shares.append(
            next((number for number, limit in enumerate(trace) if limit >= enough), rows) / rows
        )
    ratio = statistics.median(
        mine / theirs for mine, theirs in zip(batch_rates, best_rates, strict=True)
    )
    print(f"\n{name}, {rows:,} rows")
    print(
        "  fixed    " + ", ".join(f"{fixed}: {rate:.0f}/s" for fixed, rate in sorted(sweep.items()))
    )
    best_rate = statistics.median(best_rates)
    batch_rate = statistics.median(batch_rates)
    times = batch_rate / sequential
    print(f"  best     {best} in flight: {best_rate:.1f} rows/s, the median of five")
    print(
        f"  batch    {batch_rate:.1f} rows/s = {ratio:.3f} of it, {times:.1f} x the sequential loop"
    )
    share = statistics.median(shares)
    print(
        f"  found    {enough} or more in flight, which is 95 % of the best, after {share:.1%} of "
        "the rows"
    )
    print(
        "  limits   " + " ".join(str(limit) for limit in TracedLimiter.trace[:: rows // 30]),
        flush=True,
    )


# cost

COST_IN_FLIGHT = 64


async def bare_aiohttp(url: str, rows: int) -> None:
    numbers = iter(prompts(rows))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for prompt in numbers:
                body = {
                    "model": "stub",
                    "max_tokens": 16,
                    "messages": [{"role": "user", "content": prompt}],
                }
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    json.loads(await response.read())["choices"][0]["message"]["content"]

        await asyncio.gather(*(client() for _ in range(COST_IN_FLIGHT)))


async def bare_httpx(url: str, rows: int) -> None:
    import httpx

    numbers = iter(prompts(rows))
    limits = httpx.Limits(max_connections=COST_IN_FLIGHT, max_keepalive_connections=COST_IN_FLIGHT)
    async with httpx.AsyncClient(limits=limits, timeout=60) as session:

        async def client() -> None:
            for prompt in numbers:
                body = {
                    "model": "stub",
                    "max_tokens": 16,
                    "messages": [{"role": "user", "content": prompt}],
                }
                response = await session.post(f"{url}/v1/chat/completions", json=body)
                response.json()["choices"][0]["message"]["content"]

        await asyncio.gather(*(client() for _ in range(COST_IN_FLIGHT)))


def with_batch(url: str, rows: int) -> None:
    measure(url, rows, COST_IN_FLIGHT)


def cost(full: bool) -> None:
    rows = 30_000 if full else 6_000
    variants: dict[str, Callable[[str, int], object]] = {
        "aiohttp": lambda url, rows: asyncio.run(bare_aiohttp(url, rows)),
        "httpx": lambda url, rows: asyncio.run(bare_httpx(url, rows)),
        "batch": with_batch,
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    rates: dict[str, list[float]] = {name: [] for name in variants}
    with stub() as url:
        for turn in range(4):
            for name, variant in variants.items():
                size = rows if turn else rows // 10
                processor = time.process_time()
                wall = time.perf_counter()
                variant(url, size)
                if turn:  # the first is for warming up
                    seconds[name].append((time.process_time() - processor) / size)
                    rates[name].append(size / (time.perf_counter() - wall))
    print(f"{rows:,} rows, {COST_IN_FLIGHT} in flight, the median of three")
    base = statistics.median(seconds["aiohttp"])
    for name, values in seconds.items():
        if values:
            middle = statistics.median(values)
            more, rate = middle - base, statistics.median(rates[name])
            print(
                f"  {name:8} {middle * 1e3:.3f} ms of processor per request, {more * 1e3:+.3f}; "
                f"{rate:,.0f}/s"
            )


# poison

POISON_DEADLINE, POISON_RETRIES = 1.0, 1


def poison(full: bool) -> None:
    rows = 28_800 if full else 9_600
    rates: dict[str, list[float]] = {"": [], "refused": [], "unanswered": []}
    for _ in range(3):
        for what, values in rates.items():
            with stub(seconds=0.1, slots=48, poison=what) as url:
                began = time.perf_counter()
                result = batch(
                    Endpoint(url, "stub"),
                    prompts(rows),
                    work=WORK,
                    deadline=POISON_DEADLINE,
                    max_retries=POISON_RETRIES,
                    progress=False,
                )
                values.append(rows / (time.perf_counter() - began))
            expected = rows // 100 if what else 0
            if result.failed != expected:
                raise SystemExit(f"{result.failed} rows failed, and {expected} should have")
    print(
        f"{rows:,} rows, 48 slots, the median of three; a deadline of {POISON_DEADLINE:g} s, "
        f"{POISON_RETRIES} retry: what the last rows wait for is part of it"
    )
    for what, values in rates.items():
        ratio = statistics.median(
            mine / alone for mine, alone in zip(values, rates[""], strict=True)
        )
        name = f"1 % {what}" if what else "all answered"
        print(f"  {name:15} {statistics.median(values):.0f} rows/s = {ratio:.3f}")


# million


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


def million(full: bool) -> None:
    rows = 1_000_000 if full else 100_000
    samples: list[tuple[int, float]] = []

    def sampled() -> Iterator[str]:
        for number, prompt in enumerate(prompts(rows)):
            if number % (rows // 20) == 0:
                samples.append((number, resident_mib()))
            yield prompt

    with stub() as url, tempfile.TemporaryDirectory() as directory:
        measure(url, 1000)  # imports, pools and caches
        began, before = time.perf_counter(), resident_mib()
        result = batch(Endpoint(url), sampled(), work=WORK, output=Path(directory, "out.jsonl"))
        took = time.perf_counter() - began
        samples.append((rows, resident_mib()))
        with Path(directory, "out.jsonl").open("rb") as file:
            count = sum(1 for _ in file)
    print(
        "  rows read and resident MiB: "
        + ", ".join(f"{number:,}: {mib:.0f}" for number, mib in samples)
    )
    most = max(mib for _, mib in samples)
    print(
        f"{rows:,} rows in {took:.0f} s, {rows / took:,.0f}/s; {count:,} lines, {result.failed} "
        "failed"
    )
    print(f"resident memory grew by {most - before:.0f} MiB, from {before:.0f} to {most:.0f}")


# kill

KILLED = """
import sys
sys.path.insert(0, {directory!r})
import batch as bench
endpoint = bench.Endpoint({url!r})
rows = bench.prompts({rows})
bench.batch(endpoint, rows, work=bench.WORK, output={output!r}, progress=False)
"""


def kill(full: bool) -> None:
    rows, kills = (10_000, 20) if full else (2_000, 4)
    chance = random.Random(1)
    with (
        stub(seconds=0.4, slots=64, remembers=True) as url,
        tempfile.TemporaryDirectory() as directory,
    ):
        output = Path(directory, "out.jsonl")
        code = KILLED.format(
            directory=str(Path(__file__).parent), url=url, rows=rows, output=str(output)
        )
        for number in range(kills):
            process = subprocess.Popen([sys.executable, "-c", code])
            try:
                process.wait(chance.uniform(1.0, 4.0))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            else:
                print(f"  it was done before kill {number + 1}")
                break
        subprocess.run([sys.executable, "-c", code], check=True)
        with urllib.request.urlopen(f"{url}/answered") as answer:
            answered = json.load(answer)
        records = [json.loads(line) for line in output.open(encoding="utf-8")]
    in_order = [record["index"] for record in records] == list(range(rows))
    right = all(
        record["output"] == f"answer to {prompt}"
        for record, prompt in zip(records, prompts(rows), strict=True)
    )
    twice = len(answered) - len(set(answered))
    print(
        f"{rows:,} rows, killed {kills} times: {len(records):,} records, in order: {in_order}, "
        f"each its own: {right}"
    )
    print(
        f"{len(answered):,} answers for {len(set(answered)):,} rows: {twice} asked for twice, "
        f"{twice / rows:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--what", choices=["knee", "cost", "poison", "million", "kill"], default="cost"
    )
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="", help="of knee: the servers with this in their name")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(*json.loads(arguments.serve)))
    else:
        measures: dict[str, Callable[[bool], None]] = {
            "knee": partial(knee, only=arguments.only),
            "cost": cost,
            "poison": poison,
            "million": million,
            "kill": kill,
        }
        measures[arguments.what](arguments.full)


if __name__ == "__main__":
    main()
