"""What starts, stops and fails when: histories of pods of fakes, in no time."""

from __future__ import annotations

from typing import Any

import pytest

from flytekitplugins.inference.errors import ServerExitedError, ServerNotReadyError
from flytekitplugins.inference.local.backoff import Backoff
from flytekitplugins.inference.local.supervisor import PodPhase

RUNNING, STOPPED = PodPhase.RUNNING, PodPhase.STOPPED


def test_containers_start_in_order_and_stop_in_reverse(
    manifests: Any, scenario: Any, run: Any
) -> None:
    probe = {"startupProbe": manifests.probe()}
    manifest = manifests.pod(
        manifests.sidecar("exporter"),
        manifests.init("first"),
        manifests.sidecar("server", **probe),
        manifests.init("gate"),
    )
    runs = {
        "first": [run(exits_after=2)],
        "server": [run(ready_after=5, term_takes=1)],
        "exporter": [run(term_takes=1)],
        "gate": [run(exits_after=1)],
    }
    pod = scenario(manifest, runs).step_until(RUNNING)
    assert pod.told == [
        "exporter started",
        "first started",
        "first exited 0",
        "server started",
        "server passed",
        "gate started",
        "gate exited 0",
    ]
    assert pod.supervisor.is_settled
    before = len(pod.told)
    assert pod.stop().told[before:] == [
        "server stopping",
        "server exited 143",
        "exporter stopping",
        "exporter exited 143",
        "pod stopped",
    ]


def test_a_sidecar_without_startup_probe_holds_nothing_back(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server"), manifests.init("gate"))
    pod = scenario(manifest, {"gate": [run(exits_after=30)]}).step_until(RUNNING)
    assert pod.seconds("gate", "started") == [0.0]
    assert pod.seconds("gate", "exited") == [30.0]


def test_a_failing_init_container_ends_the_start(manifests: Any, scenario: Any, run: Any) -> None:
    line = (
        '{"version": 1, "program": "x", "error": "E", "message": "No such bucket.", "hint": '
        '"Make one."}'
    )
    manifest = manifests.pod(
        manifests.sidecar("server"), manifests.init("downloader"), manifests.init("never")
    )
    runs = {"downloader": [run(exits_after=1, code=66, lines=("looking", line))]}
    pod = scenario(manifest, runs).step_until(STOPPED)
    assert pod.told == [
        "server started",
        "downloader started",
        "downloader exited 66",
        "server stopping",
        "server exited 143",
        "pod stopped",
    ]
    failure = pod.supervisor.failure
    assert isinstance(failure, ServerExitedError)
    assert failure.message == (
        "downloader ended with exit code 66 and the pod cannot start without it: No such bucket."
    )
    assert (failure.hint, failure.log_tail) == ("Make one.", ("looking",))


def test_a_termination_log_comes_before_the_last_line(
    manifests: Any, scenario: Any, run: Any
) -> None:
    message = '{"message": "From the file.", "hint": ""}'
    runs = {"x": [run(exits_after=0, code=1, lines=("last line",), message=message)]}
    failure = (
        scenario(manifests.pod(manifests.init("x")), runs).step_until(STOPPED).supervisor.failure
    )
    assert "From the file." in failure.message
    assert failure.log_tail == ("last line",)


def test_a_crashing_sidecar_is_restarted_with_back_off_and_then_given_up(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=manifests.probe()))
    runs = {"server": [run(exits_after=1, code=3, ready_after=9, lines=("no model",))]}
    pod = scenario(manifest, runs).step_until(STOPPED)
    crash = ["server started", "server exited 3", "server restarting"]
    assert pod.told == [*crash * 4, "pod stopped"]
    starts = pod.seconds("server", "started")
    gaps = [
        round(after - end, 1)
        for end, after in zip(pod.seconds("server", "exited"), starts[1:], strict=False)
    ]
    assert [round(gap) for gap in gaps] == [0, 1, 2]
    assert pod.supervisor.failure.message == (
        "server ended with exit code 3 after 3 restarts, before the pod had started."
    )
    assert pod.supervisor.failure.log_tail == ("no model",) * 4


def test_a_sidecar_may_need_a_second_try(manifests: Any, scenario: Any, run: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=manifests.probe()))
    runs = {"server": [run(exits_after=1, code=1, ready_after=9), run(ready_after=1)]}
    pod = scenario(manifest, runs).step_until(RUNNING)
    assert pod.supervisor.containers[0].restarts == 1
    assert pod.supervisor.containers[0].crashes == 0


def test_a_sidecar_that_never_gets_ready_uses_up_its_budget(
    manifests: Any, scenario: Any, run: Any
) -> None:
    probe = manifests.probe(failureThreshold=4, periodSeconds=5, initialDelaySeconds=2)
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=probe))
    pod = scenario(manifest, {"server": [run(ready_after=1e9, lines=("loading",))]}).step_until(
        STOPPED
    )
    assert pod.seconds("server", "stopping") == [22.0]
    failure = pod.supervisor.failure
    assert isinstance(failure, ServerNotReadyError)
    assert failure.message == (
        "server was not ready after 22 s: GET http://127.0.0.1:8000/health: connection refused."
    )
    assert failure.log_tail == ("loading",)
    waiting = [line for line in pod.stream.getvalue().splitlines() if "waiting" in line]
    asked = "[pod] waiting for server: GET http://127.0.0.1:8000/health: connection refused"
    assert waiting == [f"{asked} (3 s of at most 22 s)", f"{asked} (13 s of at most 22 s)"]


@pytest.mark.parametrize("timeout", [7, 70])
def test_a_startup_timeout_takes_the_place_of_the_budget(
    manifests: Any, scenario: Any, run: Any, timeout: float
) -> None:
    probe = manifests.probe(failureThreshold=2, periodSeconds=10)
    manifest = manifests.pod(
        manifests.init("first"), manifests.sidecar("server", startupProbe=probe)
    )
    runs = {"first": [run(exits_after=3)], "server": [run(ready_after=1e9)]}
    pod = scenario(manifest, runs, {"startup_seconds": timeout}).step_until(STOPPED)
    assert pod.seconds("server", "stopping") == [timeout]


def test_a_container_whose_memory_was_not_enough(manifests: Any, scenario: Any, run: Any) -> None:
    runs = {"x": [run(exits_after=0, code=137, reason="OOMKilled")]}
    pod = scenario(manifests.pod(manifests.init("x")), runs).step_until(STOPPED)
    assert pod.supervisor.failure.message == (
        "x ended with exit code 137 (SIGKILL, OOMKilled) and the pod cannot start without it."
    )
    assert pod.supervisor.failure.hint == "It needs more memory than its limit; raise mem=."


def test_a_startup_timeout_bounds_init_containers_too(
    manifests: Any, scenario: Any, run: Any
) -> None:
    pod = scenario(manifests.pod(manifests.init("slow")), {}, {"startup_seconds": 5}).step_until(
        STOPPED
    )
    assert pod.supervisor.failure.message == "slow was not ready after 5 s: its end."


def test_the_first_startup_probes_do_not_wait_for_the_period(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(
        manifests.sidecar("server", startupProbe=manifests.probe(initialDelaySeconds=20))
    )
    pod = scenario(manifest, {"server": [run(ready_after=0.5)]}).step_until(RUNNING)
    assert pod.seconds("server", "passed")[0] <= 0.7


def test_a_failing_liveness_probe_restarts_a_sidecar(
    manifests: Any, scenario: Any, run: Any
) -> None:
    liveness = manifests.probe(periodSeconds=5, failureThreshold=2)
    manifest = manifests.pod(
        manifests.sidecar("server", startupProbe=manifests.probe(), livenessProbe=liveness), grace=4
    )
    runs = {"server": [run(ready_after=1, unhealthy_after=11, term_takes=None), run(ready_after=2)]}
    pod = scenario(manifest, runs).step_until(RUNNING).step_for(25)
    assert pod.told == [
        "server started",
        "server passed",
        "server unhealthy",
        "server stopping",
        "server killed",
        "server exited 137",
        "server restarting",
        "server started",
        "server passed",
    ]
    (stopping,), (killed,) = pod.seconds("server", "stopping"), pod.seconds("server", "killed")
    assert round(killed - stopping) == 4
    url = "http://127.0.0.1:8000/health"
    assert [line for line in pod.stream.getvalue().splitlines() if "[pod]" in line] == [
        f"[pod] server is stopped and started again: its liveness probe failed, GET {url}: "
        "connection refused",
        "[pod] server ended with exit code 137 (SIGKILL) and is started again",
    ]
    assert "connection refused" in next(
        event.detail for event in pod.history.events if event.kind == "unhealthy"
    )


def test_a_probe_may_have_a_grace_period_of_its_own(
    manifests: Any, scenario: Any, run: Any
) -> None:
    liveness = manifests.probe(periodSeconds=1, failureThreshold=1, terminationGracePeriodSeconds=1)
    manifest = manifests.pod(manifests.sidecar("server", livenessProbe=liveness), grace=30)
    pod = (
        scenario(manifest, {"server": [run(unhealthy_after=2, term_takes=None)]})
        .step_until(RUNNING)
        .step_for(5)
    )
    assert round(pod.seconds("server", "killed")[0] - pod.seconds("server", "stopping")[0]) == 1


def test_readiness_is_recorded_and_has_no_consequence(
    manifests: Any, scenario: Any, run: Any
) -> None:
    readiness = manifests.probe(periodSeconds=1, failureThreshold=2, successThreshold=2)
    manifest = manifests.pod(manifests.sidecar("server", readinessProbe=readiness))
    pod = (
        scenario(manifest, {"server": [run(ready_after=3, unhealthy_after=10)]})
        .step_until(RUNNING)
        .step_for(20)
    )
    assert pod.told == ["server started", "server ready", "server unready"]


def test_a_sidecar_that_ends_while_the_primary_runs_is_restarted(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=manifests.probe()))
    runs = {
        "server": [
            run(exits_after=10, code=0, ready_after=1),
            run(exits_after=1, code=1),
            run(ready_after=2),
        ]
    }
    pod = scenario(manifest, runs).step_until(RUNNING)
    assert pod.supervisor.find_down() is None
    pod.step_for(10.3)
    assert not pod.supervisor.is_broken
    pod.step_for(1)
    error = pod.supervisor.find_down()
    assert error is None or "waits to be restarted" in error.message
    pod.step_for(10)
    assert pod.supervisor.is_settled
    assert pod.supervisor.containers[0].restarts == 2
    lines = [line for line in pod.stream.getvalue().splitlines() if "[pod]" in line]
    assert lines == [
        "[pod] server ended with exit code 0 and is started again",
        "[pod] server ended with exit code 1 and is started again",
    ]


def test_check_names_the_sidecar_that_is_down(manifests: Any, scenario: Any, run: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server"))
    pod = scenario(
        manifest, {"server": [run(exits_after=5, code=139, lines=("segfault",))]}
    ).step_until(RUNNING)
    pod.step_for(10.5)
    error = pod.supervisor.find_down()
    assert error is not None
    assert error.message == "server ended with exit code 139 (SIGSEGV) and waits to be restarted."
    assert error.log_tail == ("segfault",) * 2


def test_a_crash_loop_while_the_primary_runs_goes_on_but_is_broken(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=manifests.probe()))
    runs = {"server": [run(exits_after=9), run(exits_after=0.2, code=1, ready_after=9)]}
    pod = scenario(manifest, runs).step_until(RUNNING).step_for(120)
    assert pod.supervisor.phase is RUNNING
    assert pod.supervisor.is_broken
    starts = pod.seconds("server", "started")
    assert round(starts[-1] - starts[-2]) == 30
    pod.stop()


def test_a_restarted_sidecar_that_never_gets_ready_is_restarted_again(
    manifests: Any, scenario: Any, run: Any
) -> None:
    probe = manifests.probe(failureThreshold=2, periodSeconds=5)
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=probe))
    runs = {"server": [run(exits_after=5), run(ready_after=1e9), run(ready_after=1)]}
    pod = scenario(manifest, runs).step_until(RUNNING).step_for(60)
    assert pod.told[2:] == [
        "server exited 0",
        "server restarting",
        "server started",
        "server unhealthy",
        "server stopping",
        "server exited 143",
        "server restarting",
        "server started",
        "server passed",
    ]


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace_period(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("a"), manifests.sidecar("b"), grace=8)
    pod = scenario(manifest, {"b": [run(term_takes=None)]}).step_until(RUNNING).stop()
    assert pod.told[2:] == [
        "b stopping",
        "b killed",
        "b exited 137",
        "a stopping",
        "a exited 143",
        "pod stopped",
    ]
    assert round(pod.seconds("b", "killed")[0] - pod.seconds("b", "stopping")[0]) == 8


def test_the_grace_period_is_for_the_whole_pod_with_a_minimum_for_each(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("a"), manifests.sidecar("b"), grace=8)
    ignoring = [run(term_takes=None)]
    pod = scenario(manifest, {"a": ignoring, "b": ignoring}).step_until(RUNNING).stop()
    assert round(pod.seconds("a", "killed")[0] - pod.seconds("a", "stopping")[0]) == 2
    assert round(pod.seconds("pod", "stopped")[0] - pod.seconds("b", "stopping")[0]) == 10


def test_a_stop_may_shorten_the_grace_period(manifests: Any, scenario: Any, run: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("a"), grace=30)
    pod = scenario(manifest, {"a": [run(term_takes=None)]}).step_until(RUNNING).stop(grace=1)
    assert round(pod.seconds("a", "killed")[0] - pod.seconds("a", "stopping")[0]) == 1


def test_a_stop_during_the_start_ends_what_has_begun(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(
        manifests.sidecar("server"), manifests.init("slow"), manifests.init("never")
    )
    pod = scenario(manifest, {}).step_for(1).stop()
    assert pod.told == [
        "server started",
        "slow started",
        "slow stopping",
        "slow exited 143",
        "server stopping",
        "server exited 143",
        "pod stopped",
    ]
    assert pod.supervisor.failure is None


def test_a_kill_waits_for_nobody(manifests: Any, scenario: Any, run: Any) -> None:
    ignoring = [run(term_takes=None)]
    pod = scenario(
        manifests.pod(manifests.sidecar("a"), manifests.sidecar("b")),
        {"a": ignoring, "b": ignoring},
    )
    pod.step_until(RUNNING).supervisor.request_kill()
    began = pod.now
    pod.step_until(STOPPED)
    assert pod.now - began < 1


def test_a_stop_while_a_sidecar_waits_to_be_restarted(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server"))
    pod = (
        scenario(manifest, {"server": [run(exits_after=2, code=1)]})
        .step_until(RUNNING)
        .step_for(4.5)
    )
    assert pod.supervisor.find_down() is not None
    assert pod.stop().told[-1] == "pod stopped"
    assert pod.step_for(10).told[-1] == "pod stopped"


def test_containers_beside_the_primary_start_with_it_and_stop_first(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server"))
    manifest["spec"]["containers"].append(manifests.init("beside"))
    pod = scenario(manifest, {}).step_until(RUNNING).stop()
    assert pod.told == [
        "server started",
        "beside started",
        "beside stopping",
        "beside exited 143",
        "server stopping",
        "server exited 143",
        "pod stopped",
    ]


def test_notes_of_the_plan_are_events_and_lines(manifests: Any, scenario: Any) -> None:
    entry = manifests.sidecar("server", env=[{"name": "HF_TOKEN", "value": "$(_FSEC_X)"}])
    pod = scenario(manifests.pod(entry), {})
    assert pod.told == ["server noted"]
    assert pod.stream.getvalue() == (
        "[pod] server: HF_TOKEN was left out: what it refers to does not exist here\n"
    )


def test_back_off_doubles_up_to_a_cap() -> None:
    delays = [Backoff(base_seconds=10, cap_seconds=300).delay(crashes) for crashes in range(1, 9)]
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert Backoff().delay(10_000) == 30


def test_the_back_off_grows_even_when_each_run_gets_ready(
    manifests: Any, scenario: Any, run: Any
) -> None:
    manifest = manifests.pod(manifests.sidecar("server", startupProbe=manifests.probe()))
    pod = (
        scenario(manifest, {"server": [run(exits_after=2, code=1)]})
        .step_until(RUNNING)
        .step_for(60)
    )
    starts, ends = pod.seconds("server", "started"), pod.seconds("server", "exited")
    assert [round(start - end) for end, start in zip(ends, starts[1:], strict=False)][:5] == [
        0,
        1,
        2,
        4,
        8,
    ]
    assert not pod.supervisor.is_broken


def test_a_long_run_is_forgiven_what_was_before(manifests: Any, scenario: Any, run: Any) -> None:
    manifest = manifests.pod(manifests.sidecar("server"))
    runs = {
        "server": [
            run(exits_after=1, code=1),
            run(exits_after=1, code=1),
            run(exits_after=700, code=1),
            run(),
        ]
    }
    pod = scenario(manifest, runs).step_until(RUNNING).step_for(720)
    starts, ends = pod.seconds("server", "started"), pod.seconds("server", "exited")
    assert [round(start - end) for end, start in zip(ends, starts[1:], strict=True)] == [0, 1, 0]
