"""However the caller's process ends, nothing of its pods is left."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from patience import patient

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("backend")
SERVER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else signal.SIG_DFL)
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
if "stubborn" not in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
time.sleep(600)
"""
SCRIPT = """
    import asyncio, json, sys, time
    from flytekitplugins.inference import local

    manifest, mode = json.loads(sys.argv[1]), sys.argv[2:]

    if "leased" in mode:
        with local.lease(manifest, idle_seconds=600):
            pass
        time.sleep(1 if "ending" in mode else 600)
    elif "async" in mode:
        async def use():
            async with local.lease(manifest, idle_seconds=600):
                await asyncio.sleep(600)
        asyncio.run(use())
    elif "forgotten" in mode:
        pod = local.start(manifest)
        time.sleep(1)
        sys.exit(5)
    else:
        with local.start(manifest):
            time.sleep(600)
"""


def _manifest(manifests: Any, modes: list[str]) -> str:
    probe = {"tcpSocket": {"port": 1}, "failureThreshold": 100}
    fields = {"startupProbe": probe} if "starting" in modes else {}
    server = manifests.sidecar("server", SERVER, *modes, **fields)
    return json.dumps(manifests.pod(server, grace=600 if "stubborn" in modes else 5))


def _identity(tmp_path: Path, eventually: Any, alive: Any, count: int = 3) -> str:
    directory = eventually(lambda: next(tmp_path.glob("inference-pod-*"), None))
    eventually(lambda: len(alive(directory.name)) >= count)
    return str(directory.name)


@pytest.mark.parametrize(
    ("modes", "number", "code"),
    [
        ([], signal.SIGINT, {-2, 1, 130}),
        (["starting"], signal.SIGINT, {-2, 1, 130}),
        (["leased"], signal.SIGINT, {-2, 1, 130}),
        (["async"], signal.SIGINT, {-2, 1, 130}),
        (["async", "starting"], signal.SIGINT, {-2, 1, 130}),
        ([], signal.SIGTERM, {-15}),
        (["starting"], signal.SIGTERM, {-15}),
        (["leased"], signal.SIGTERM, {-15}),
        (["stubborn"], signal.SIGTERM, {-15}),
        ([], signal.SIGKILL, {-9}),
    ],
)
def test_a_signal_leaves_nothing(
    manifests: Any,
    run_script: Any,
    alive: Any,
    eventually: Any,
    tmp_path: Path,
    modes: list[str],
    number: int,
    code: set[int],
) -> None:
    script = run_script(SCRIPT, _manifest(manifests, modes), *modes)
    identity = _identity(tmp_path, eventually, alive)
    assert script.end(number) in code
    eventually(lambda: not alive(identity))
    eventually(lambda: not list(tmp_path.glob("inference-pod-*")))


def test_ctrl_c_twice_waits_for_nobody(
    manifests: Any, run_script: Any, alive: Any, eventually: Any, tmp_path: Path
) -> None:
    script = run_script(SCRIPT, _manifest(manifests, ["stubborn"]), "stubborn")
    identity = _identity(tmp_path, eventually, alive)
    script.process.send_signal(signal.SIGINT)
    with pytest.raises(Exception, match="timed out"):
        script.process.wait(0.7)  # a grace period of ten minutes has begun
    assert script.end(signal.SIGINT) in {-2, 1, 130}
    eventually(lambda: not alive(identity))
    assert not list(tmp_path.glob("inference-pod-*"))


@pytest.mark.parametrize(("modes", "code"), [(["forgotten"], 5), (["leased", "ending"], 0)])
def test_the_end_of_the_interpreter_stops_what_was_forgotten(
    manifests: Any,
    run_script: Any,
    alive: Any,
    eventually: Any,
    tmp_path: Path,
    modes: list[str],
    code: int,
) -> None:
    script = run_script(SCRIPT, _manifest(manifests, modes), *modes)
    identity = _identity(tmp_path, eventually, alive)
    assert script.process.wait(patient(15)) == code
    assert alive(identity) == []
    assert not list(tmp_path.glob("inference-pod-*"))
    assert (tmp_path / "errors").read_text() == ""
