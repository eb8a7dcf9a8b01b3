"""The budget of the whole start: one clock for all programs, and what each says at its end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flytekitplugins.inference.errors import UsageError
from flytekitplugins.inference.programs.kernel import boot_id
from flytekitplugins.inference.programs.start_budget import BudgetSpent, start_budget, telling
from patience import wait_for

MIB = 1024 * 1024


def now() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "start-clock"


@pytest.fixture
def budget(clock: Path) -> Callable[..., dict[str, str]]:
    """Return the variable of a start that has `seconds` and began `ago` seconds ago."""

    def variable(seconds: float, ago: float | None = None) -> dict[str, str]:
        if ago is not None:
            clock.parent.mkdir(exist_ok=True)
            clock.write_text(json.dumps({"boot": boot_id(), "begun": now() - ago}))
        return {"INFERENCE_START": json.dumps({"seconds": seconds, "clock": str(clock)})}

    return variable


# The clock


def test_the_first_program_sets_the_clock_and_the_next_ones_read_it(
    clock: Path, budget: Any
) -> None:
    command = [
        sys.executable,
        "-m",
        "flytekitplugins.inference.programs.wait_for_server",
        "--preflight",
    ]
    before = now()
    subprocess.run(command, check=True, env={**os.environ, **budget(100)}, umask=0o077)
    written = clock.read_text()
    assert before < json.loads(written)["begun"] < now()
    assert stat.S_IMODE(clock.stat().st_mode) == 0o644
    subprocess.run(command, check=True, env={**os.environ, **budget(100)})
    assert clock.read_text() == written
    later = start_budget(budget(100))
    assert later.begun == json.loads(written)["begun"]
    assert later.left == pytest.approx(100 - (now() - later.begun), abs=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"boot": ',
        "[]",
        json.dumps({"boot": "another", "begun": 0.0}),
        json.dumps({"boot": boot_id(), "begun": "soon"}),
        json.dumps({"boot": boot_id(), "begun": 1e18}),
        json.dumps({"boot": boot_id(), "begun": float("nan")}),
    ],
)
def test_a_clock_that_tells_nothing_begins_now(text: str, clock: Path, budget: Any) -> None:
    clock.parent.mkdir()
    clock.write_text(text)
    before = now()
    first = start_budget(budget(100))
    assert first.begun >= before
    assert start_budget(budget(100)) == first


def test_a_clock_that_cannot_be_written_leaves_the_whole_budget(clock: Path, budget: Any) -> None:
    clock.parent.touch()  # no directory
    assert start_budget(budget(100)).left == pytest.approx(100, abs=5)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "900",
        "{",
        "[" * 100_000,
        "{}",
        '{"seconds": 900}',
        '{"seconds": "900", "clock": "/c"}',
        '{"seconds": true, "clock": "/c"}',
        '{"seconds": 0, "clock": "/c"}',
        '{"seconds": NaN, "clock": "/c"}',
        '{"seconds": Infinity, "clock": "/c"}',
        '{"seconds": 900, "clock": "start-clock"}',
        '{"seconds": 900, "clock": 5}',
    ],
)
def test_a_broken_value_is_told(value: str) -> None:
    with pytest.raises(
        UsageError,
        match=r'INFERENCE_START holds .*{"seconds": 900, "clock": "/shared/start-clock"}',
    ):
        start_budget({"INFERENCE_START": value})


def test_without_the_variable_nothing_is_bounded_but_by_the_command_line() -> None:
    before = now()
    unbounded = start_budget({})
    assert (unbounded.seconds, unbounded.left) == (math.inf, math.inf)
    assert before <= unbounded.begun <= now()
    assert not unbounded.is_shared
    assert start_budget({}, timeout_seconds=30).seconds == 30


@pytest.mark.parametrize(("timeout", "seconds"), [(30, 30), (300, 100), (math.inf, 100)])
def test_the_command_line_shortens_the_same_clock(
    timeout: float, seconds: float, clock: Path, budget: Any
) -> None:
    variable = budget(100, ago=20)
    whole = start_budget(variable)
    shortened = start_budget(variable, timeout_seconds=timeout)
    assert shortened == dataclasses.replace(whole, seconds=seconds)
    assert shortened.spent >= 20
    assert shortened.is_shared


def test_the_innermost_tells() -> None:
    def nested() -> None:
        with (
            telling(lambda: "outer"),
            telling(lambda: "inner", lambda: "Do this."),
            telling(lambda: ""),
        ):
            raise BudgetSpent

    with pytest.raises(BudgetSpent) as caught:
        nested()
    assert (caught.value.doing, caught.value.hint) == ("inner", "Do this.")


# The programs


def spent(done: Any, *texts: str) -> None:
    assert (done.code, done.message["error"]) == (69, "ServerNotReadyError"), done.stderr
    assert "startup_timeout" in done.message["hint"]
    for text in texts:
        assert text in done.message["message"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "download_inputs inputs.pb",
        "load_model owner/name",
        "load_model owner/name --check",
        "create_model http://localhost:9 --name m",
        "wait_for_server http://localhost:9 --timeout 9",
        "wait_for_server --preflight",
    ],
)
def test_every_program_wants_a_value_that_can_be_read(command: str, tmp_path: Path) -> None:
    program, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, "-m", f"flytekitplugins.inference.programs.{program}", *arguments],
        env={
            **os.environ,
            "INFERENCE_START": "{}",
            "INFERENCE_TERMINATION_LOG": str(tmp_path / "log"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 64
    assert (
        "INFERENCE_START" in json.loads((tmp_path / "log").read_text().splitlines()[-1])["message"]
    )


def alarm(process: subprocess.Popen[str], condition: Callable[[], Any]) -> None:
    """Send the alarm as soon as `condition` holds: a timer would not know."""
    wait_for(condition)
    process.send_signal(signal.SIGALRM)


def test_inputs_that_do_not_arrive_in_time(
    web: Any, inputs_pb: Any, download: Any, budget: Any
) -> None:
    from flytekit.types.file import FlyteFile

    web.put("a", b"1234")
    web.put("b", bytes(20 * MIB))
    uri = inputs_pb(a=(FlyteFile(web.url("a")), FlyteFile), b=(FlyteFile(web.url("b")), FlyteFile))
    web.bytes_per_second = 1 * MIB
    process = download.start(uri, **budget(900, ago=800))
    arrived = download.root / "inputs"
    alarm(
        process,
        lambda: (
            web.sent.get("b", 0) > MIB and [path for path in arrived.rglob("a") if path.is_file()]
        ),
    )
    done = download.wait(process)
    spent(
        done,
        "The start has 900 s and began 8",
        "download_inputs had not finished. 1 of 2 files (",
        " of the inputs had",
    )
    assert not (done.root / "shared" / "inputs.json").exists()
    web.bytes_per_second = 0.0
    assert download(uri).code == 0


@pytest.mark.parametrize("left", [-1, 0.5])
def test_a_budget_that_is_over_ends_a_program(
    left: float, hub: Any, load: Any, budget: Any
) -> None:
    hub.commit({"model.bin": b"weights"})
    hub.web.faults["api/models/owner/name/revision/main"] = ["hold"] * 9
    process = load.start(
        "owner/name",
        "--once",
        "--stall-timeout",
        "60",
        **hub.environ,
        **budget(100, ago=100 - left),
    )
    spent(load.wait(process), "The start has 100 s and began 1", "load_model had not finished.")
    assert left > 0 or hub.web.requests == []


def test_a_download_tells_how_far_it_is(hub: Any, load: Any, budget: Any, tmp_path: Path) -> None:
    hub.commit({"config.json": b"{}", "model.bin": bytes(20 * MIB)})
    hub.web.bytes_per_second = 1 * MIB
    process = load.start("owner/name", "--once", **hub.environ, **budget(900, ago=800))
    config = lambda: list((tmp_path / "cache").rglob("files/config.json"))  # noqa: E731
    alarm(process, lambda: hub.web.sent.get(hub.stored(bytes(20 * MIB)), 0) > MIB and config())
    spent(load.wait(process), "1 of 2 files (", f" of {20 * MIB + 2} bytes) of ", " had arrived.")
    assert not (tmp_path / "models" / ".ready").exists()
    assert list((tmp_path / "cache").rglob("*.lease")) == []
    hub.web.bytes_per_second = 0.0
    assert load("owner/name", **hub.environ).code == 0


@pytest.mark.parametrize("option", ["--once", "--check"])
def test_a_source_that_is_silent(option: str, hub: Any, load: Any, budget: Any) -> None:
    hub.commit({"model.bin": b"weights"})
    hub.web.faults["api/models/owner/name/revision/main"] = ["hold"] * 9
    process = load.start(
        "owner/name", option, "--stall-timeout", "60", **hub.environ, **budget(900, ago=800)
    )
    alarm(process, lambda: hub.web.requests)
    spent(load.wait(process), "hf://owner/name was being ")


def test_another_process_that_downloads(hub: Any, load: Any, budget: Any, tmp_path: Path) -> None:
    sha = hub.commit({"model.bin": bytes(20 * MIB)})
    hub.web.bytes_per_second = 1 * MIB
    load.start("owner/name", "--once", stderr=subprocess.DEVNULL, **hub.environ)
    wait_for(lambda: hub.web.sent)
    with (tmp_path / "log").open("w") as log:
        second = load.start(
            "owner/name", "--once", stderr=log, **hub.environ, **budget(900, ago=800)
        )
    alarm(second, lambda: "waiting revision=" in (tmp_path / "log").read_text())
    assert second.wait(30) == 69
    assert (
        f"Another process was downloading {sha}." in (tmp_path / "log").read_text().splitlines()[-1]
    )


def test_a_loader_that_stays_is_let_alone_once_it_is_ready(
    hub: Any, load: Any, budget: Any, tmp_path: Path
) -> None:
    hub.commit({"model.bin": b"weights"})
    process = load.start("owner/name", "--update-interval", "0.1", **hub.environ, **budget(9))
    end = now() + 30
    metadata = tmp_path / "models" / "metadata.json"
    while not metadata.exists() or json.loads(metadata.read_text())["updates"]["polls"] < 2:
        assert now() < end
        assert process.poll() is None
        time.sleep(0.02)
    while now() < json.loads((tmp_path / "shared" / "start-clock").read_text())["begun"] + 9.5:
        time.sleep(0.1)
    assert process.poll() is None
