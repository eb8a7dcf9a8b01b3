"""A run over time, in few points."""

from __future__ import annotations

from dataclasses import dataclass

MOST_POINTS = 240
"""When there are more, every second one is dropped."""


@dataclass(frozen=True, slots=True)
class Point:
    """The run at one moment."""

    seconds: float
    """Since it began."""
    finished: int
    """Rows."""
    limit: int
    in_flight: int
    rows_per_second: float


class Series:
    """Points at equal distances, which double whenever there are too many."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._distance = 1
        """Of the points that are offered, one in so many is kept."""
        self._offered = 0

    def offer(self, point: Point) -> None:
        """Keep a point when it is far enough from the last."""
        if self._offered % self._distance == 0:
            self.points.append(point)
        self._offered += 1
        if len(self.points) > MOST_POINTS:
            self.points = self.points[::2]
            self._distance *= 2
