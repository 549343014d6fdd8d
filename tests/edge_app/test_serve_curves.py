"""The curves behind the page: constant memory, and nothing averaged away that somebody looks for."""

from __future__ import annotations

from typing import Any

from serve_rig import Clock, Rig

from edge_app.serve.series import NAMES, SPANS, Point, Series, merged


def point(number: int, **changes: Any) -> Point:
    values = {name: None for name in NAMES} | {"bits": 8, "cause": "none", "fps": 10.0}
    return Point(number=number, time=float(number), **(values | changes))


def test_of_several_points_the_worst_is_kept() -> None:
    whole = merged(
        [
            point(0, bits=6, cause="load", temperature_c=60.0, p99_ms=5.0, battery=0.9, fps=10.0),
            point(1, bits=2, cause="thermal", temperature_c=80.0, p99_ms=90.0, fps=0.0),
            point(2, bits=None, temperature_c=None, p99_ms=None, battery=0.8, fps=20.0),
        ]
    )
    assert (whole.bits, whole.cause) == (2, "thermal")
    assert (whole.temperature_c, whole.p99_ms, whole.battery) == (80.0, 90.0, 0.8)
    assert (whole.fps, whole.time) == (10.0, 2.0)
    assert merged([point(0, bits=None), point(1, bits=None)]).bits is None


def test_three_days_take_no_more_memory_than_one() -> None:
    series = Series()
    for second in range(3 * 86400):
        series.add(point(second, bits=2 if second == 200_000 else 8))
    for span in SPANS:
        points = series.points(span.name)
        assert len(points) == span.points
        numbers = [entry.number for entry in points]
        assert numbers == list(range(numbers[0], numbers[0] + span.points))
        steps = {b.time - a.time for a, b in zip(points, points[1:], strict=False)}
        assert steps == {span.step_s}
    assert [entry.bits for entry in series.points("day")].count(2) == 1


def test_a_gap_leaves_no_false_points() -> None:
    series = Series()
    for second in (*range(25), *range(500, 525)):
        series.add(point(second))
    times = [entry.time for entry in series.points("hour")]
    assert times == [9.0, 19.0, 24.0, 509.0, 519.0]


def test_times_are_those_of_the_wall_however_it_was_set() -> None:
    series = Series()
    series.add(point(100))
    series.add(point(101))
    assert series.to_json("minutes", now=111.0, wall=5000.0)["t"] == [4989.0, 4990.0]
    assert series.to_json("minutes", now=111.0, wall=90.0)["t"] == [79.0, 80.0]


def test_a_point_has_the_hottest_moment_and_the_lowest_level_since_the_last() -> None:
    clock = Clock()
    rig = Rig(clock)
    for bits, celsius in ((8, 60.0), (2, 82.0), (4, 70.0)):
        rig.decide(bits=bits, temperature_c=celsius, cause="thermal" if bits == 2 else "none")
    for seq in range(20):
        rig.frame(seq=seq, infer_s=0.010)
    clock.seconds += 0.5
    rig.hub.pulse()
    assert rig.hub.series.newest is None, "not yet time for a point"
    clock.seconds += 1.5
    rig.hub.pulse()
    first = rig.hub.series.newest
    assert first is not None
    assert (first.bits, first.cause, first.temperature_c) == (2, "thermal", 82.0)
    assert first.fps == 10.0 and first.p50_ms == 10.0
    clock.seconds += 1.0
    rig.hub.pulse()
    second = rig.hub.series.newest
    assert second is not None
    assert (second.bits, second.temperature_c) == (4, 70.0)
    assert second.fps == 0.0 and second.p50_ms is None, "no latency is made up without frames"


def test_a_fixed_level_is_what_the_curve_shows() -> None:
    clock = Clock()
    rig = Rig(clock)
    rig.decide(bits=2)
    rig.frame(bits=8, cause="fixed")
    clock.seconds += 1.0
    rig.hub.pulse()
    newest = rig.hub.series.newest
    assert newest is not None and (newest.bits, newest.cause) == (8, "fixed")


def test_percentiles_are_those_of_the_newest_frames() -> None:
    rig = Rig()
    for seq in range(1000):
        rig.frame(seq=seq, infer_s=5.0 if seq < 744 else 0.001 * (seq - 743))
    assert rig.hub.infer_s.percentiles(50, 99) == (0.129, 0.254)
