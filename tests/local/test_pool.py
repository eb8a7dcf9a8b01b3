"""Pods that are used again, as processes and as containers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from flytekitplugins.inference import local
from flytekitplugins.inference.errors import ServerExitedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("backend")
only_processes = pytest.mark.parametrize("backend", ["processes"], indirect=True)
FAST = local.Backoff(base_seconds=0.05, cap_seconds=0.1)


@pytest.fixture(autouse=True)
def _private_pool(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Any
) -> Iterator[None]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    local.stop_idle()
    eventually(lambda: list(tmp_path.glob("inference-pod-*")) == [])


def identity(pod: local.LocalPod) -> str:
    return pod._plan.root.name


def test_an_equal_key_gets_the_running_pod(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, key="a") as first:
        pass
    with local.lease(manifest, key="a") as second, local.lease(manifest, key="b") as other:
        assert second is first
        assert other is not first
        second.check()
    told = [f"{event.container} {event.kind}" for event in first.events]
    assert told == [
        "server started",
        "primary started",
        "primary ended",
        "primary started",
        "primary ended",
    ]


def test_without_a_key_what_the_pod_reads_decides(manifests: Any, tmp_path: Path) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    changed = manifests.pod(manifests.sidecar("server", manifests.sleep), grace=4)
    with local.lease(manifest) as one, local.lease(manifest) as same:
        assert one is same
        with (
            local.lease(changed) as other,
            local.lease(manifest, local.LocalSettings(variables={"input": "/x"})) as third,
            local.lease(manifest, local.LocalSettings(volumes={"data": tmp_path})) as fourth,
        ):
            assert len({one, other, third, fourth}) == 4


def test_files_lie_in_the_pod_and_count_for_its_key(manifests: Any) -> None:
    source = "import sys; print(open(sys.argv[1]).read(), flush=True)"
    manifest = manifests.pod(
        manifests.init("reader", source, "{{.input}}"), manifests.sidecar("server", manifests.sleep)
    )
    with (
        local.lease(manifest, local.LocalSettings(files={"input": b"one"})) as one,
        local.lease(manifest, local.LocalSettings(files={"input": b"one"})) as same,
    ):
        assert one is same
        assert one.log_tail("reader") == ("one",)
        with local.lease(manifest, local.LocalSettings(files={"input": b"two"})) as other:
            assert other.log_tail("reader") == ("two",)


def test_a_pod_whose_server_has_just_ended_is_not_lent(
    manifests: Any, alive: Any, eventually: Any
) -> None:
    """The state machine looks every now and then; between two looks it does not know of the end."""
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, local.LocalSettings(max_restarts=0, backoff=FAST), key="a") as pod:
        pass
    (process,) = [container._process for container in pod._supervisor.containers]
    runs = pod._supervisor.containers[0].runs
    eventually(
        lambda: bool(alive(identity(pod)))
    )  # a runtime's container is there a moment before its process
    program = max(alive(identity(pod)))
    os.kill(program, signal.SIGKILL)
    eventually(lambda: program not in alive(identity(pod)))
    assert process is not None
    # a container runtime notices the end a moment later
    eventually(lambda: process.poll() is not None or pod._supervisor.containers[0].runs > runs)
    with local.lease(manifest, local.LocalSettings(max_restarts=0, backoff=FAST), key="a") as again:
        assert again is not pod or again._supervisor.containers[0].runs > runs


def test_it_is_stopped_after_an_idle_time(manifests: Any, alive: Any, eventually: Any) -> None:
    with local.lease(
        manifests.pod(manifests.sidecar("server", manifests.sleep)), key="a", idle_seconds=0.3
    ) as pod:
        assert alive(identity(pod))
    assert alive(identity(pod))
    eventually(lambda: pod.events[-1].kind == "stopped")
    assert alive(identity(pod)) == []


def test_a_lease_in_time_keeps_it(manifests: Any, eventually: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, key="a", idle_seconds=0.2) as pod:
        pass
    with local.lease(manifest, key="a", idle_seconds=0.2) as again:
        assert again is pod
        with pytest.raises(AssertionError):
            eventually(lambda: pod.is_broken, seconds=0.6)
    eventually(lambda: pod.is_broken)


def test_no_idle_time_stops_it_with_the_last_user(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, key="a", idle_seconds=0) as pod:
        with local.lease(manifest, key="a", idle_seconds=0) as same:
            assert same is pod
        pod.check()
    assert pod.events[-1].kind == "stopped"


def test_threads_that_ask_at_once_share_one_start(manifests: Any, free_port: int) -> None:
    manifest = manifests.pod(manifests.server(free_port))
    barrier = threading.Barrier(6)

    def use(_: int) -> local.LocalPod:
        barrier.wait()
        with local.lease(manifest, key="a") as pod:
            pod.check()
            assert pod.is_settled
            return pod

    with ThreadPoolExecutor(6) as pool:
        pods = list(pool.map(use, range(6)))
    assert len(set(pods)) == 1
    assert [event.kind for event in pods[0].events if event.container == "model-server"] == [
        "started",
        "passed",
    ]


@only_processes
def test_threads_that_wait_for_a_failing_start_get_its_error(
    manifests: Any, tmp_path: Path
) -> None:
    count = tmp_path / "count"
    source = "import sys, time; open(sys.argv[1], 'a').write('x'); time.sleep(0.5); sys.exit(3)"
    manifest = manifests.pod(manifests.init("first", source, str(count)))
    barrier = threading.Barrier(3)

    def use(_: int) -> str:
        barrier.wait()
        with pytest.raises(ServerExitedError) as caught, local.lease(manifest, key="a"):
            pass
        return str(caught.value)

    with ThreadPoolExecutor(3) as pool:
        texts = set(pool.map(use, range(3)))
    assert len(texts) == 1
    assert count.read_text() == "x"
    count.unlink()


@only_processes
def test_a_failed_start_is_tried_anew_by_the_next(manifests: Any, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    source = "import os, sys; sys.exit(not os.path.exists(sys.argv[1]))"
    manifest = manifests.pod(manifests.init("first", source, str(flag)))
    with pytest.raises(ServerExitedError), local.lease(manifest, key="a"):
        pass
    flag.touch()
    with local.lease(manifest, key="a"):
        pass
    flag.unlink()


def test_a_pod_beyond_hope_is_replaced(manifests: Any, eventually: Any) -> None:
    manifest = manifests.pod(
        manifests.sidecar("server", "import time; time.sleep(0.2); raise SystemExit(3)")
    )
    with local.lease(manifest, local.LocalSettings(backoff=FAST), key="a") as broken:
        eventually(lambda: broken.is_broken)
        with local.lease(manifest, local.LocalSettings(backoff=FAST), key="a") as fresh:
            assert fresh is not broken
        assert not any(event.kind == "stopped" for event in broken.events)  # its user still has it
    assert broken.events[-1].kind == "stopped"


def test_a_pod_that_was_stopped_is_replaced(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, key="a") as stopped:
        stopped.stop()
    with local.lease(manifest, key="a") as fresh:
        fresh.check()


def test_a_server_that_is_being_restarted_is_waited_for(
    manifests: Any, eventually: Any, free_port: int
) -> None:
    import urllib.request

    manifest = manifests.pod(manifests.server(free_port))
    with local.lease(manifest, local.LocalSettings(backoff=FAST), key="a") as pod:
        with pytest.raises(OSError, match=r".*"):
            urllib.request.urlopen(f"http://127.0.0.1:{free_port}/exit")
        eventually(lambda: any(event.kind == "exited" for event in pod.events))
    with local.lease(manifest, local.LocalSettings(backoff=FAST), key="a") as same:
        assert same is pod
        assert urllib.request.urlopen(f"http://127.0.0.1:{free_port}/").status == 200


def test_a_body_that_raises_gives_its_lease_back(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with pytest.raises(ZeroDivisionError), local.lease(manifest, key="a") as pod:
        _ = 1 / 0
    assert pod.events[-1].detail == "raised ZeroDivisionError"
    local.stop_idle()
    assert pod.events[-1].kind == "stopped"


@only_processes
def test_a_forked_process_has_a_pool_of_its_own(manifests: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", manifests.sleep))
    with local.lease(manifest, key="a") as pod:
        child = os.fork()
        if child == 0:
            local.stop_idle()
            with local.lease(manifest, key="a", idle_seconds=0) as own:
                is_own = own is not pod
            os._exit(0 if is_own else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pod.check()


def test_coroutines_lease_without_blocking_their_loop(manifests: Any, free_port: int) -> None:
    manifest = manifests.pod(manifests.server(free_port))

    async def use() -> local.LocalPod:
        async with local.lease(manifest, key="a") as pod:
            pod.check()
            return pod

    async def all_at_once() -> list[local.LocalPod]:
        return await asyncio.gather(*(use() for _ in range(4)))

    assert len(set(asyncio.run(all_at_once()))) == 1


def test_a_coroutine_gets_the_error_of_the_start(manifests: Any) -> None:
    async def use() -> None:
        async with local.lease(
            manifests.pod(manifests.init("first", "raise SystemExit(3)")), key="a"
        ):
            pass

    with pytest.raises(ServerExitedError, match="exit code 3"):
        asyncio.run(use())


def test_a_coroutine_that_is_cancelled_gives_its_lease_back(manifests: Any) -> None:
    manifest = manifests.pod(manifests.init("slow", "import time; time.sleep(0.5)"))

    async def use() -> None:
        async with local.lease(manifest, key="a", idle_seconds=0):
            raise AssertionError("it was cancelled")

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(use(), 0.1))
