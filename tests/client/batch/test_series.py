"""A run over time, in few points."""

from __future__ import annotations

from itertools import pairwise

import pytest

from flytekitplugins.inference.client.batch.series import MOST_POINTS, Point, Series


@pytest.mark.parametrize("offered", [0, 1, MOST_POINTS, MOST_POINTS + 1, 5000])
def test_points_cover_the_whole_run_at_equal_distances(offered: int) -> None:
    series = Series()
    for number in range(offered):
        series.offer(Point(float(number), number, 16, 16, 1.0))
    moments = [point.seconds for point in series.points]
    assert len(moments) <= MOST_POINTS
    assert moments[:1] == [0.0][:offered]
    distances = {later - earlier for earlier, later in pairwise(moments)}
    assert len(distances) <= 1
    if offered > 1:
        (distance,) = distances
        assert moments[-1] + distance >= offered
        assert distance * MOST_POINTS <= 2 * max(offered, MOST_POINTS)
