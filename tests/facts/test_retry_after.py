"""`Retry-After`: one table of cases for all who read it."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from flytekitplugins.inference.client.attempts import Attempts, Limits
from flytekitplugins.inference.client.batch.faults import fault_of_status
from flytekitplugins.inference.client.record import Record
from flytekitplugins.inference.errors import SourceUnavailableError
from flytekitplugins.inference.facts import retry_after
from flytekitplugins.inference.facts.retry_after import MAX_SECONDS, parse_retry_after
from flytekitplugins.inference.programs.retry import Retry
from flytekitplugins.inference.programs.stores import fsspec_store, s3_store
from flytekitplugins.inference.programs.stores.http_store import HttpStore
from flytekitplugins.inference.programs.stores.store import error_for_status
from patience import patient

NOW = 1445412480.0
"""Wed, 21 Oct 2015 07:28:00 GMT."""

CASES = [
    ("3", 3.0),
    (" 3 ", 3.0),
    ("1.5", 1.5),
    ("0", 0.0),
    ("86401", MAX_SECONDS),
    ("9" * 400, MAX_SECONDS),
    ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
    ("Wed, 21 Oct 2015 07:28:30", 30.0),
    ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
    ("Wed, 21 Oct 2015 09:28:30 +0200", 30.0),
    ("Wednesday, 21-Oct-15 07:28:30 GMT", 30.0),
    ("Wed Oct 21 07:28:30 2015", 30.0),
    ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0),
    ("Wed, 21 Oct 1015 07:28:00 GMT", 0.0),
    ("Wed, 21 Oct 9999 07:28:00 GMT", MAX_SECONDS),
    ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ("", None),
    ("   ", None),
    ("soon", None),
    ("-4", None),
    ("+4", None),
    ("1e3", None),
    ("inf", None),
    ("nan", None),
    ("1²", None),
    ("٣", None),
    ("3 s", None),
    (",", None),
    ("Wed, 21 Oct", None),
    ("\x00", None),
]


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry_after, "time", SimpleNamespace(time=lambda: NOW))
    # the least that a random pause comes to
    monkeypatch.setattr("random.uniform", lambda least, most: least)


@pytest.mark.parametrize(("value", "seconds"), CASES)
def test_the_header(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value) == seconds


def test_no_header() -> None:
    assert parse_retry_after(None) is None


@pytest.mark.parametrize(("value", "seconds"), CASES)
def test_a_client_waits_as_long(value: str, seconds: float | None) -> None:
    request = httpx.Request("POST", "http://h/", content=b"{}")
    limits = Limits(timeout_seconds=1, outage_seconds=2 * MAX_SECONDS, retry_busy=True)
    watch: Any = SimpleNamespace(last=None)
    attempts = Attempts(request, limits=limits, watch=watch, record=Record(), http=httpx)
    wait = attempts.after_answer(503, {"retry-after": value})
    assert wait is not None
    # who says nothing, or no time at all, is asked after the client's own pause
    assert wait.pause_seconds == (seconds or 0.125)


@pytest.mark.parametrize(("value", "seconds"), CASES)
def test_a_batch_waits_as_long(value: str, seconds: float | None) -> None:
    assert fault_of_status(503, "", {"Retry-After": value}).retry_after == (seconds or 0.0)


def _of_http(value: str, status: int) -> Exception:
    answer = SimpleNamespace(status_code=status, reason="Busy", headers={"Retry-After": value})
    return HttpStore(connections=1, stall_seconds=1)._refused(answer, "http://h/x")


def _of_s3(value: str, status: int) -> Exception:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {"retry-after": value}}
    return s3_store._translated({"ResponseMetadata": metadata}, "s3://b/x")


class _ForeignError(Exception):
    """As aiohttp's: with the status and the headers of the answer."""

    def __init__(self, value: str, status: int) -> None:
        self.status = status
        self.headers = {"Retry-After": value}


def _of_fsspec(value: str, status: int) -> Exception:
    return fsspec_store._translated(_ForeignError(value, status), "gs://b/x")


@pytest.mark.parametrize("store", [_of_http, _of_s3, _of_fsspec])
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("value", "seconds"), CASES)
def test_a_program_knows_what_a_store_asks_for(
    value: str, seconds: float | None, status: int, store: Any
) -> None:
    error = store(value, status)
    assert isinstance(error, SourceUnavailableError)
    assert error.retry_after_seconds == (seconds or 0.0)


# How a program waits


class Stop(threading.Event):
    """Notes how long it was waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def refused(value: str | None) -> Exception:
    return error_for_status(429, "http://h/x", "Busy", retry_after=value)


def failing(*errors: Exception) -> Any:
    left = list(errors)

    def action() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return action


def test_what_a_source_asks_for_is_waited_for() -> None:
    stop = Stop()
    assert Retry().call(failing(refused("40"), refused(None), refused("0")), stop) == "done"
    assert stop.waits == [40.0, 0.0, 0.0]


def test_a_source_does_not_shorten_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda least, most: most)
    stop = Stop()
    retry = Retry(backoff_seconds=8.0)
    assert retry.call(failing(refused("1"), refused("100")), stop) == "done"
    assert stop.waits == [8.0, pytest.approx(110.0)]


@pytest.mark.parametrize("retry", [Retry(), Retry(max_retry_after_seconds=5.0)])
def test_a_source_that_asks_for_too_long_is_given_up_at_once(retry: Retry) -> None:
    stop = Stop()
    with pytest.raises(SourceUnavailableError, match="left alone for 1 h 40 min"):
        retry.call(failing(refused("6000")), stop)
    assert stop.waits == []


def test_a_source_that_asks_for_longer_than_there_is_time_is_given_up_at_once() -> None:
    import time

    stop = Stop()
    retry = Retry(until=time.monotonic() + patient(30))
    assert retry.call(failing(refused("10")), stop) == "done"
    with pytest.raises(SourceUnavailableError):
        retry.call(failing(refused(str(patient(40)))), stop)
    assert stop.waits == [10.0]
