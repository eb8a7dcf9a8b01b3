"""The clients against real servers: llama.cpp, Triton and MLServer, installed by `dev/servers`.

Each is started by its command; that its clients wait until it is up, and when it is killed, is part
of what is tested.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from flytekitplugins.inference.client.endpoint import Endpoint
from flytekitplugins.inference.errors import ConfigError, ServerError, ServerNotReadyError
from patience import wait_for
from ports import reserve_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]
SERVERS = Path(__file__).parents[2] / ".venv" / "servers"
MESSAGES: list[Any] = [{"role": "user", "content": "count"}]


def made(name: str, kind: str) -> Path:
    """Return a server's tiny model; without the server the test ends here."""
    models = pytest.importorskip("live.models", reason="the makers of tiny models are not there")
    if not (SERVERS / name / "stamp").exists():
        reason = f"{name} is not installed; to get it: dev/servers {name}"
        if (
            os.environ.get("INFERENCE_REQUIRE_LIVE") == "1"
            and not (SERVERS / f"{name}.obstacle").exists()
        ):
            pytest.fail(reason)
        pytest.skip(reason)
    path: Path = models.made(SERVERS / name / "bin" / "python", kind, cache=SERVERS / "models")
    return path


@contextmanager
def started(name: str, *command: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as long as the block lasts, without waiting for it."""
    programs = SERVERS / name / "bin"
    process = subprocess.Popen(
        [str(programs / command[0]), *command[1:]],
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# llama.cpp


def llama(port: int) -> tuple[str, ...]:
    model = made("llamacpp", "llama-gguf") / "model.gguf"
    options = (
        "--model",
        str(model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--threads",
        "1",
        "--alias",
        "tiny",
    )
    return ("llama-server", *options)


def test_llama_cpp_answers_blocking_streamed_and_in_asyncio() -> None:
    port = reserve_port()
    endpoint = Endpoint(
        url=f"http://127.0.0.1:{port}",
        protocol="openai",
        health_url=f"http://127.0.0.1:{port}/health",
    )

    async def ask(model: str) -> str | None:
        async with endpoint.async_client() as client:
            asking = [
                client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20)
                for _ in range(4)
            ]
            answers = {
                answer.choices[0].message.content for answer in await asyncio.gather(*asking)
            }
            return answers.pop() if len(answers) == 1 else str(answers)

    with started("llamacpp", *llama(port)), endpoint.client() as client:
        model = endpoint.served_model_name()  # waits until it is up
        assert model == "tiny"
        expected = "one two three four five six seven eight"
        answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20)
        assert (answer.choices[0].message.content or "").strip() == expected
        chunks = list(
            client.chat.completions.create(
                model=model, messages=MESSAGES, max_tokens=20, stream=True
            )
        )
        parts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(parts).strip() == expected
        assert ((asyncio.run(ask(model))) or "").strip() == expected
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "one " * 50_000}]
            )
    snapshot = endpoint.record.snapshot()
    assert (snapshot["failed"], snapshot["first_byte_seconds"]["count"]) == (1, 1)


def test_llama_cpp_is_waited_for_when_it_is_killed() -> None:
    port = reserve_port()
    endpoint = Endpoint(
        url=f"http://127.0.0.1:{port}",
        protocol="openai",
        model="tiny",
        health_url=f"http://127.0.0.1:{port}/health",
    )
    with endpoint.client() as client:

        def ask(**options: Any) -> str:
            answer = client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_tokens=20, **options
            )
            return (answer.choices[0].message.content or "").strip()

        with started("llamacpp", *llama(port)) as first:
            expected = ask()
            left, returned = endpoint.record.outages
            kill(first)
            with started("llamacpp", *llama(port)):
                assert ask() == expected
        assert endpoint.record.outages == (left + 1, returned + 1)
    with endpoint.client(outage_seconds=1) as client, pytest.raises(ServerNotReadyError) as caught:
        ask()
    assert endpoint.record.outages == (left + 2, returned + 1)
    assert "the server went away" in caught.value.message
    assert f"GET {endpoint.health_url} was refused" in caught.value.message


# The Open Inference Protocol


@contextmanager
def triton() -> Iterator[Endpoint]:
    repository, ports = made("triton", "triton-repository"), [reserve_port() for _ in range(3)]
    options = [
        f"--{name}-port={port}"
        for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)
    ]
    addresses = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
    with started(
        "triton", "tritonserver", f"--model-repository={repository}", *options, *addresses
    ):
        yield Endpoint(
            url=f"http://127.0.0.1:{ports[0]}",
            protocol="v2",
            health_url=f"http://127.0.0.1:{ports[0]}/v2/health/ready",
        )


@contextmanager
def mlserver(tmp_path: Path) -> Iterator[Endpoint]:
    folder, port = made("mlserver", "mlserver-folder"), reserve_port()
    environ = {
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(reserve_port()),
        "MLSERVER_METRICS_PORT": str(reserve_port()),
        "MLSERVER_METRICS_DIR": str(tmp_path),
    }
    with started("mlserver", "mlserver", "start", str(folder), **environ):
        yield Endpoint(
            url=f"http://127.0.0.1:{port}",
            protocol="v2",
            health_url=f"http://127.0.0.1:{port}/v2/health/ready",
        )


def test_triton_takes_and_gives_bytes() -> None:
    x = np.array([3, -2], np.float32)
    with triton() as endpoint, endpoint.client() as client:
        assert client.metadata().has_binary  # waits until it is up
        assert [str(tensor) for tensor in client.metadata().inputs] == ["x: FP32 [-1]"]
        assert client.ready()
        for version, expected in (("1", [4, -1]), ("2", [7, -3])):
            result = client.infer({"x": x}, version=version, parameters={"priority": 1})
            assert result["y"].dtype == np.float32
            assert result["y"].tolist() == expected
        assert client.infer({"x": [3, -2]}, outputs=["y"])["y"].tolist() == [7, -3]
        with pytest.raises(ConfigError, match=r"'x' has the shape \[1, 1\], expected \[-1\]"):
            client.infer({"x": [[1]]})
        with pytest.raises(ServerError, match=r"was answered 40\d: .*version 9"):
            client.infer({"x": x}, version="9")
        with pytest.raises(ServerError, match=r"was answered 40\d: .*none"):
            client.infer({"x": x}, model="none")

        async def ask() -> list[Any]:
            async with endpoint.async_client() as client:
                done = await asyncio.gather(
                    *(client.infer({"x": x + n}, version="1") for n in range(20))
                )
                return [result["y"].tolist() for result in done]

        assert asyncio.run(ask()) == [[4 + n, -1 + n] for n in range(20)]


def test_mlserver_takes_and_gives_json(tmp_path: Path) -> None:
    with mlserver(tmp_path) as endpoint, endpoint.client() as client:
        wait_for(
            lambda: client.ready("affine"), seconds=60
        )  # it answers before it has loaded its models
        metadata = client.metadata()
        assert (metadata.model, metadata.has_binary) == ("affine", False)
        assert client.ready()
        (result,) = client.infer({"x": np.array([[3.0], [-2.0]])}).values()
        np.testing.assert_allclose(result.ravel(), [7, -3], rtol=1e-6)
        with pytest.raises(ConfigError, match="NaN or infinity"):
            client.infer({"x": np.array([[np.nan]])})
        with pytest.raises(ServerError, match=r"was answered 404: .*none"):
            client.infer({"x": np.array([[1.0]])}, model="none")
