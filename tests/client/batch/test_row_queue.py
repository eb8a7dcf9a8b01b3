"""Who is asked next, on a clock that is a number."""

from __future__ import annotations

from flytekitplugins.inference.client.batch.row_queue import RowQueue
from flytekitplugins.inference.client.batch.rows import Row


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def rows(number: int, first: int = 0) -> list[Row]:
    return [Row(position, f"text {position}") for position in range(first, first + number)]


def positions(queue: RowQueue, most: int = 1000) -> list[int]:
    taken = []
    while len(taken) < most and (row := queue.take()) is not None:
        taken.append(row.position)
    return taken


def test_new_rows_keep_their_order() -> None:
    queue = RowQueue(lambda: 4)
    queue.add(rows(3))
    queue.add(rows(2, first=3))
    assert positions(queue) == [0, 1, 2, 3, 4]


def test_a_delayed_row_comes_at_its_time_and_before_new_ones() -> None:
    clock = Clock()
    queue = RowQueue(lambda: 4, clock=clock)
    late, early, same = rows(3)
    queue.delay(late, 5)
    queue.delay(early, 2)
    queue.delay(same, 2)
    queue.add(rows(2, first=10))
    assert queue.seconds_until_due() == 2
    assert positions(queue, 1) == [10]
    clock.now = 2.0
    assert positions(queue) == [1, 2, 11]
    assert queue.seconds_until_due() == 3
    clock.now = 6.0
    assert queue.seconds_until_due() == 0
    assert positions(queue) == [0]
    assert queue.seconds_until_due() is None


def test_more_rows_are_wanted_before_the_last_are_taken() -> None:
    queue = RowQueue(lambda: 20)
    assert queue.is_low.is_set()
    queue.add(rows(39))
    assert queue.is_low.is_set()
    queue.add(rows(2, first=39))
    assert not queue.is_low.is_set()
    queue.take()
    assert not queue.is_low.is_set()
    queue.take()
    assert queue.is_low.is_set()


def test_very_many_delayed_rows_hold_back_new_ones() -> None:
    clock = Clock()
    queue = RowQueue(lambda: 1, clock=clock)
    for row in rows(67):
        queue.delay(row, 1)
    queue.add(rows(1, first=100))
    assert queue.take() is None
    clock.now = 1.0
    assert positions(queue) == [*range(67), 100]


def test_the_queue_is_over_once_the_input_is_and_no_row_is_left() -> None:
    clock = Clock()
    queue = RowQueue(lambda: 4, clock=clock)
    queue.add(rows(1))
    assert not queue.is_over
    queue.close()
    assert not queue.is_over
    (row,) = [queue.take()]
    assert row is not None
    assert queue.is_over
    queue.delay(row, 1)
    assert not queue.is_over
