"""The frame path with the shipped model: levels, pacing, pauses, limits and ends."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from pipeline_rig import Bench, Unpaced

from edge_app.clock import ManualClock
from edge_app.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOURCE_LOST, AppError
from edge_app.governor import Decision
from edge_app.models import open_model
from edge_app.pipeline import SLICE_S
from edge_app.sinks import OutputClosed
from edge_app.sources import Frame, SourceStatus
from edge_app.sources.digits import DigitsStream
from native_ops import Program


@pytest.fixture(scope="module")
def model() -> Iterator[Program]:
    with open_model("digits") as program:
        yield program


def thermal_decision(bits: int) -> Decision:
    return Decision(
        time=1.0,
        bits=bits,
        rung=0,
        changed=True,
        previous_bits=8,
        cause="thermal",
        caps={"thermal": bits},
        why="hot",
        next_raise_s=None,
        temperature_c=81.0,
        battery_charge=0.5,
    )


def test_records_say_what_the_model_answered(model: Program) -> None:
    bench = Bench(model, max_frames=50)
    bench.pipeline.run()
    assert [record.seq for record in bench.records] == list(range(50))
    stream = DigitsStream()
    for record in bench.records:
        frame = stream.read(0.0)
        assert frame is not None
        logits = model.run(8, frame.image)
        assert record.class_index == int(np.argmax(logits))
        assert record.label == model.labels[record.class_index]
        softmax = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert record.probability == pytest.approx(softmax.max(), rel=1e-5)
        assert record.truth == model.labels.index(str(frame.truth))
        assert (record.bits, record.branches, record.cause) == (8, (1, 2, 3, 4), "none")
        assert record.temperature_c is None and record.governor_time_s == 7.0
    assert sum(record.correct is True for record in bench.records) >= 45


def test_each_frame_runs_the_governors_level_and_reports_its_time(model: Program) -> None:
    bench = Bench(model, max_frames=6)

    def lower() -> None:
        if len(bench.records) == 3:
            bench.control.level = 2

    bench.recorder.on_frame = lower
    bench.pipeline.run()
    assert [record.bits for record in bench.records] == [8, 8, 8, 2, 2, 2]
    assert bench.records[-1].branches == (1,)
    assert [bits for bits, _ in bench.control.observed] == [8, 8, 8, 2, 2, 2]
    for (_, seconds), record in zip(bench.control.observed, bench.records, strict=True):
        assert 0 < seconds <= record.infer_s
        assert 0 < record.infer_s <= record.age_s


def test_a_close_call_is_run_again_at_the_level_that_the_governor_gives(model: Program) -> None:
    bench = Bench(model, max_frames=360)
    bench.control.first = 2
    bench.pipeline.run()
    first = list(bench.records)
    assert {record.bits for record in first} == {2}
    assert [record.margin for record in first] == bench.control.margins
    assert all(record.escalated_from is None and record.agreed is None for record in first)

    bench = Bench(model, max_frames=360)
    bench.control.first, bench.control.again = 2, 8
    bench.pipeline.run()
    for before, record in zip(first, bench.records, strict=True):
        assert (record.bits, record.branches, record.escalated_from) == (8, (1, 2, 3, 4), 2)
        assert record.agreed is (before.class_index == record.class_index)
    assert [bits for bits, _ in bench.control.observed] == [2, 8] * 360
    assert {record.agreed for record in bench.records} == {True, False}


def test_a_fixed_level_is_never_run_again(model: Program) -> None:
    bench = Bench(model, max_frames=5, fixed_bits=2)
    bench.control.again = 8
    bench.pipeline.run()
    assert {(record.bits, record.escalated_from) for record in bench.records} == {(2, None)}


class Live(Unpaced):
    """A camera of which every other frame is a second old when it is read."""

    live = True

    def __init__(self, frames: int) -> None:
        super().__init__(frames)
        self.losses = Counter(capture=3)

    def read(self, timeout: float) -> Frame | None:
        frame = super().read(timeout)
        assert frame is not None
        age_s = 1.0 if self.left % 2 else 0.0
        return Frame(frame.image, "rgb", time.monotonic() - age_s, 0.0)


def test_old_frames_of_a_live_source_are_left_out(model: Program) -> None:
    bench = Bench(model, Live(frames=10), stale_after_s=0.5)
    bench.pipeline.run()
    assert len(bench.records) == 5
    assert bench.pipeline.losses() == {"capture": 3, "deadline": 5}
    bench = Bench(model, Live(frames=10))
    bench.pipeline.run()
    assert len(bench.records) == 10, "without a deadline no frame is too old"


def test_what_a_camera_overwrites_is_shed_in_a_wait_and_stale_otherwise(model: Program) -> None:
    source = Live(frames=4)

    class Waiting(ManualClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            source.losses["stale"] += 10

    def overwrite() -> None:
        source.losses["stale"] += 1

    clock = Waiting(100.0)
    bench = Bench(model, source, clock, target_fps=10.0)
    bench.recorder.on_frame = overwrite
    bench.pipeline.run()
    losses = bench.pipeline.losses()
    assert losses["stale"] == 4, "one while each frame was busy"
    assert losses["shed"] == source.losses["stale"] - 4 >= 30


def test_decisions_reach_sinks_and_records(model: Program) -> None:
    bench = Bench(model, max_frames=2)
    bench.pipeline.decided(thermal_decision(4))
    bench.control.level = 4
    bench.pipeline.run()
    assert [decision.cause for decision in bench.recorder.decisions] == ["thermal"]
    record = bench.records[0]
    assert (record.cause, record.temperature_c, record.battery) == ("thermal", 81.0, 0.5)


def test_a_fixed_level_ignores_the_governor_but_records_its_ceiling(model: Program) -> None:
    bench = Bench(model, max_frames=2, fixed_bits=6)
    bench.pipeline.decided(thermal_decision(2))
    bench.control.level = 2
    bench.pipeline.run()
    for record in bench.records:
        assert (record.bits, record.ceiling_bits, record.cause) == (6, 2, "fixed")


def test_a_target_rate_holds_on_average(model: Program) -> None:
    bench = Bench(model, max_frames=21, target_fps=4.0)
    bench.pipeline.run()
    assert bench.recorder.times[0] == 100.0
    assert np.diff(bench.recorder.times) == pytest.approx(0.25, abs=1e-6)


def test_the_slowest_of_source_target_and_governor_sets_the_pace(model: Program) -> None:
    for interval, target, expected in ((0.5, 4.0, 0.5), (0.1, 4.0, 0.25), (0.001, None, 1 / 30)):
        bench = Bench(model, DigitsStream(), max_frames=4, target_fps=target)
        bench.control.frame_interval_s = interval
        bench.pipeline.run()
        assert np.diff(bench.recorder.times) == pytest.approx(expected, abs=1e-6)


def test_files_keep_only_a_shed_rate(model: Program) -> None:
    for interval, expected in ((1 / 30, 0.0), (0.4, 0.4)):
        bench = Bench(model, max_frames=4, full_interval_s=1 / 30)
        bench.control.frame_interval_s = interval
        bench.pipeline.run()
        assert np.diff(bench.recorder.times) == pytest.approx(expected, abs=1e-6)
    bench = Bench(model, DigitsStream(fps=100.0), max_frames=4, full_interval_s=1 / 30)
    bench.control.frame_interval_s = 1 / 30
    bench.pipeline.run()
    assert np.diff(bench.recorder.times) == pytest.approx(1 / 30, abs=1e-6)


def test_being_late_is_not_followed_by_a_burst(model: Program) -> None:
    bench = Bench(model, max_frames=4, target_fps=10.0)

    def stall() -> None:
        if len(bench.records) == 2:
            bench.clock.advance(5.0)

    bench.recorder.on_frame = stall
    bench.pipeline.run()
    assert np.diff(bench.recorder.times) == pytest.approx([0.1, 5.0, 0.1], abs=1e-6)


def test_a_pause_stops_frames_until_it_ends(model: Program) -> None:
    bench = Bench(model, max_frames=2, target_fps=10.0)
    bench.control.paused = True

    def resume() -> None:
        bench.control.paused = bench.clock.now() < 103.0

    bench.recorder.on_tick = resume
    bench.pipeline.run()
    assert bench.recorder.times[0] == pytest.approx(103.0, abs=2 * SLICE_S)


def test_the_duration_ends_a_run_also_while_paused(model: Program) -> None:
    bench = Bench(model, duration_s=2.0)
    bench.control.paused = True
    bench.pipeline.run()
    assert bench.records == []
    assert bench.pipeline.seconds == pytest.approx(2.0, abs=SLICE_S)


def test_the_end_of_the_source_and_of_the_reader_end_the_run(model: Program) -> None:
    bench = Bench(model, Unpaced(frames=3))
    bench.pipeline.run()
    assert len(bench.records) == 3

    def leave() -> None:
        raise OutputClosed

    bench = Bench(model)
    bench.recorder.on_frame = leave
    bench.pipeline.run()
    assert len(bench.records) == 1


def test_a_lost_source_is_an_error_and_the_time_is_known(model: Program) -> None:
    class Lost(Unpaced):
        def read(self, timeout: float) -> Frame | None:
            if self.left == 9_998:
                raise AppError("gone", EXIT_SOURCE_LOST)
            return super().read(timeout)

    bench = Bench(model, Lost(), target_fps=1.0)
    with pytest.raises(AppError, match="gone"):
        bench.pipeline.run()
    assert len(bench.records) == 2
    assert bench.pipeline.seconds == pytest.approx(2.0, abs=SLICE_S)


def test_frames_that_do_not_come_are_waited_for(model: Program) -> None:
    class Slow(Unpaced):
        reads = 0

        def read(self, timeout: float) -> Frame | None:
            self.reads += 1
            return super().read(timeout) if self.reads % 5 == 0 else None

    bench = Bench(model, Slow(), max_frames=3)
    bench.pipeline.run()
    assert len(bench.records) == 3


def test_a_truth_that_the_model_has_no_label_for_is_unknown(model: Program) -> None:
    class Zebra(Unpaced):
        def read(self, timeout: float) -> Frame | None:
            frame = super().read(timeout)
            assert frame is not None
            return Frame(frame.image, "rgb", frame.captured, 0.0, "zebra")

    bench = Bench(model, Zebra(), max_frames=1)
    bench.pipeline.run()
    assert bench.records[0].truth is None and bench.records[0].correct is None


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_OK)]
)
def test_the_first_signal_asks_and_the_second_is_not_caught(
    model: Program, number: signal.Signals, exit_code: int
) -> None:
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        bench = Bench(model)
        bench.stop.install()

        def interrupt() -> None:
            if len(bench.records) == 3:
                os.kill(os.getpid(), number)

        bench.recorder.on_frame = interrupt
        bench.pipeline.run()
        assert len(bench.records) == 3
        assert bench.stop.exit_code == exit_code
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def test_a_source_that_goes_and_comes_back_is_reported_once_each(model: Program) -> None:
    class Flaky(Unpaced):
        status = SourceStatus()

        def read(self, timeout: float) -> Frame | None:
            frame = super().read(timeout)
            states = {7: SourceStatus("reconnecting", 0, "no frame for 5 s")}
            states |= {6: SourceStatus("reconnecting", 1, "it does not answer")}
            states |= {5: SourceStatus("stalled", 2, "hangs"), 3: SourceStatus("up", 3)}
            self.status = states.get(self.left, self.status)
            return frame

    bench = Bench(model, Flaky(frames=10))
    bench.pipeline.run()
    assert [event.kind for event in bench.recorder.notices] == [
        "source_lost",
        "source_lost",
        "source_back",
    ]
    assert "opened again 3 times" in bench.recorder.notices[-1].text
