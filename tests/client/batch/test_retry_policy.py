"""What a fault means for its row: tables of faults."""

from __future__ import annotations

from typing import Any

import pytest

from flytekitplugins.inference.client.batch.faults import FINAL, KINDS, RETRYABLE, Fault
from flytekitplugins.inference.client.batch.retry_policy import (
    BACKOFF_BASE_SECONDS,
    BACKOFF_CAP_SECONDS,
    MAX_REFUSALS,
    RetryPolicy,
    Verdict,
    backoff,
)
from flytekitplugins.inference.client.batch.rows import Row

POLICY = RetryPolicy(max_retries=2, outage_seconds=10)


def decide(row: Row, kind: Any, *, now: float = 0.0, server_was_away: bool = False) -> Verdict:
    return POLICY.decide(row, Fault(kind, kind), now=now, server_was_away=server_was_away)


@pytest.mark.parametrize("kind", sorted(RETRYABLE - {"overloaded", "no_files"}))
def test_a_row_may_fail_as_often_as_retries_are_allowed(kind: Any) -> None:
    row = Row(0, "a")
    assert [decide(row, kind) for _ in range(3)] == [Verdict.RETRY, Verdict.RETRY, Verdict.FAIL]
    assert row.attempts == 3


@pytest.mark.parametrize("kind", sorted(set(KINDS) - RETRYABLE))
def test_what_would_fail_again_fails_at_once(kind: Any) -> None:
    row = Row(0, "a")
    assert decide(row, kind) is Verdict.FAIL
    assert row.attempts == (0 if kind == "invalid_row" else 1)


@pytest.mark.parametrize(
    ("kind", "verdict"), [("unreachable", Verdict.WAIT), ("disconnected", Verdict.RETRY)]
)
def test_a_server_that_was_away_excuses_all_but_who_may_have_brought_it_down(
    kind: Any, verdict: Verdict
) -> None:
    row = Row(0, "a")
    assert decide(row, kind, server_was_away=True) is verdict
    assert row.attempts == (verdict is Verdict.RETRY)


def test_a_busy_server_is_not_held_against_a_row_before_the_run_would_have_ended() -> None:
    row = Row(0, "a")
    assert {decide(row, "overloaded", now=moment) for moment in range(5, 36)} == {Verdict.WAIT}
    assert row.attempts == 0
    assert decide(row, "overloaded", now=35.1) is not Verdict.WAIT


def test_files_that_this_process_lacks_are_never_held_against_a_row() -> None:
    row = Row(0, "a")
    assert {decide(row, "no_files") for _ in range(100)} == {Verdict.WAIT}
    assert row.attempts == 0


def test_a_row_that_is_refused_while_others_are_answered_fails() -> None:
    row = Row(0, "a", refusals=MAX_REFUSALS)
    assert decide(row, "overloaded") is Verdict.WAIT
    row.refusals += 1
    assert decide(row, "overloaded") is Verdict.FAIL
    assert row.attempts == MAX_REFUSALS + 1


def test_refusals_are_not_held_against_a_row_that_fails_otherwise() -> None:
    row = Row(0, "a", refusals=MAX_REFUSALS + 1)
    assert decide(row, "server_error") is Verdict.RETRY


@pytest.mark.parametrize("attempts", range(8))
def test_pauses_double_and_have_jitter_and_a_bound(attempts: int) -> None:
    row = Row(0, "a", attempts=attempts)
    longest = min(BACKOFF_CAP_SECONDS, BACKOFF_BASE_SECONDS * 2**attempts)
    pauses = [backoff(row) for _ in range(50)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 1


def test_final_faults_are_none_that_may_pass() -> None:
    assert not FINAL & RETRYABLE
