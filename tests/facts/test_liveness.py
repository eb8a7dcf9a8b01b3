"""The rule of a true liveness, as event histories with a clock of their own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flytekitplugins.inference.facts.liveness import MAX_REFUSALS, LivenessRule

BOUND = 120.0
Page = dict[str, float]

IDLE: Page = {"requests_running": 0, "requests_waiting": 0, "heartbeat": 10}
BUSY: Page = {"requests_running": 4, "requests_waiting": 9, "heartbeat": 10}


def verdict_after(pages: Sequence[tuple[float, Page]], now: float) -> bool:
    progress = LivenessRule(BOUND)
    for at, page in pages:
        progress.add_page(page, at)
    return progress.verdict(now).is_live


def every_five(page: Page, start: float, end: float) -> list[tuple[float, Page]]:
    return [(float(at), page) for at in range(int(start), int(end) + 1, 5)]


@pytest.mark.parametrize(
    ("pages", "now", "is_live"),
    [
        pytest.param([], 10_000, True, id="never up: the gate's business"),
        pytest.param(every_five(IDLE, 0, 1000), 1000, True, id="idle"),
        pytest.param(every_five(BUSY, 0, 120), 120, True, id="within the bound"),
        pytest.param(every_five(BUSY, 0, 125), 125, False, id="busy without progress"),
        pytest.param(
            # vllm-project/vllm#39863
            every_five({**BUSY, "requests_running": 0, "requests_waiting": 3}, 0, 125),
            125,
            False,
            id="running 0, waiting 3",
        ),
        pytest.param(
            [(at, {**BUSY, "heartbeat": at}) for at, _ in every_five({}, 0, 1000)],
            1000,
            True,
            id="busy and working",
        ),
        pytest.param(
            [(at, {**BUSY, "requests_finished": at // 100}) for at, _ in every_five({}, 0, 1000)],
            1000,
            True,
            id="requests finish",
        ),
        pytest.param(
            [(at, {**BUSY, "kv_cache_usage": at / 1e4}) for at, _ in every_five({}, 0, 1000)],
            1000,
            True,
            id="the cache fills, tokens are counted at the end",
        ),
        pytest.param(
            [(at, {**BUSY, "prompt_tokens": at}) for at, _ in every_five({}, 0, 125)],
            125,
            False,
            id="prompt tokens may be counted on arrival",
        ),
        pytest.param([(0.0, BUSY)], 121, False, id="busy, then silent"),
        pytest.param([(0.0, IDLE)], 119, True, id="idle, then silent within the bound"),
        pytest.param([(0.0, IDLE)], 121, False, id="idle, then silent: frozen"),
        pytest.param(
            [(0.0, BUSY), (118.0, {**BUSY, "heartbeat": 11})], 230, True, id="saturated, late pages"
        ),
        pytest.param(
            [*every_five(BUSY, 0, 100), (105.0, {**BUSY, "heartbeat": 2})],
            200,
            True,
            id="a counter that falls is a restart",
        ),
        pytest.param(
            every_five({"requests_running": 3}, 0, 1000), 1000, True, id="no counter to judge by"
        ),
        pytest.param(
            [(at, {"heartbeat": 1, "requests_received": at}) for at, _ in every_five({}, 0, 125)],
            125,
            False,
            id="no gauge, but requests arrive and none is answered",
        ),
        pytest.param(
            [
                (0.0, {"heartbeat": 1, "requests_received": 1}),
                *every_five({"heartbeat": 1, "requests_received": 2}, 5, 300),
            ],
            300,
            True,
            id="one request that its client gave up",
        ),
    ],
)
def test_verdict(pages: list[tuple[float, Page]], now: float, is_live: bool) -> None:
    assert verdict_after(pages, now) is is_live


def test_clients_that_wait_make_a_server_busy() -> None:
    progress = LivenessRule(BOUND)
    for at, page in every_five(IDLE, 0, 125):
        progress.add_page(page, at, in_flight=1)
    verdict = progress.verdict(125)
    assert not verdict.is_live
    assert "nothing has moved for 125 s" in verdict.reason


def test_refusals_in_a_row_count_once_it_was_up() -> None:
    progress = LivenessRule(BOUND)
    for _ in range(MAX_REFUSALS):
        progress.add_refusal()
    assert progress.verdict(0).is_live
    progress.add_page(IDLE, 1)
    for _ in range(MAX_REFUSALS - 1):
        progress.add_refusal()
    progress.add_page(IDLE, 2)
    for _ in range(MAX_REFUSALS - 1):
        progress.add_refusal()
    assert progress.verdict(3).is_live
    progress.add_refusal()
    assert not progress.verdict(3).is_live


@pytest.mark.parametrize("heartbeat", [0.0, 10.0, 11.0])
def test_each_restart_counts_once_however_it_shows(heartbeat: float) -> None:
    progress = LivenessRule(BOUND)
    progress.add_page(IDLE, 0)
    progress.add_refusal()
    progress.add_page({**IDLE, "heartbeat": heartbeat}, 5)
    progress.add_page({**IDLE, "heartbeat": heartbeat}, 10)
    assert progress.restarts == 1


def test_the_first_answer_is_no_restart() -> None:
    progress = LivenessRule(BOUND)
    progress.add_refusal()
    progress.add_page(IDLE, 5)
    assert progress.restarts == 0


def test_a_server_that_was_started_anew_may_load_for_as_long_as_it_takes() -> None:
    progress = LivenessRule(BOUND)
    progress.add_page(BUSY, 0)
    progress.begin_restart()
    for _ in range(MAX_REFUSALS):
        progress.add_refusal()
    assert progress.verdict(10_000).is_live
    progress.add_page({**BUSY, "heartbeat": 0}, 10_000)
    assert progress.restarts == 1
    assert progress.verdict(10_120).is_live
    assert not progress.verdict(10_121).is_live


def test_a_port_that_answers_without_a_model_is_dead() -> None:
    progress = LivenessRule(BOUND)
    progress.add_readiness(False, 0)  # it loads
    progress.add_page(IDLE, 200)
    progress.add_readiness(False, 200)
    assert progress.verdict(201).is_live
    progress.add_readiness(True, 210)
    for at in range(220, 350, 5):
        progress.add_page(IDLE, at)
        progress.add_readiness(False, at)
    assert progress.verdict(340).is_live
    verdict = progress.verdict(341)
    assert not verdict.is_live
    assert "has not been ready for 121 s" in verdict.reason


def test_a_server_that_works_need_not_be_ready() -> None:
    progress = LivenessRule(BOUND)
    progress.add_readiness(True, 0)
    for at in range(0, 1000, 5):
        progress.add_page({**BUSY, "heartbeat": at}, at)
        progress.add_readiness(False, at)
    assert progress.verdict(995).is_live


def test_the_age_of_the_proof_of_life() -> None:
    progress = LivenessRule(BOUND)
    assert progress.seconds_since_proof(50) == 0
    progress.add_page(BUSY, 50)
    progress.add_page(BUSY, 60)
    assert progress.seconds_since_proof(75) == 25
