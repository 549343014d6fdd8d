"""The watcher, with real files: changes are noticed, mistakes keep the old policy and are said
once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.clock import ManualClock
from edge_app.governor import PolicyError, Resolved
from edge_app.policy import files as policy_file
from edge_app.policy.layers import Sources, load
from edge_app.policy.text import differences
from edge_app.policy.watcher import PolicyWatcher, Rejected, Reloaded


class Setup:
    """A policy file, a user's file and a directory of drop-ins that are watched."""

    def __init__(self, root: Path) -> None:
        self.file = root / "policy.toml"
        self.user = root / "home" / "policy.toml"
        self.system = root / "policy.d"
        self.clock = ManualClock()
        self.reads = 0
        self.sources = Sources(path=self.file, user=self.user, system=self.system)
        self.file.write_text("[thermal]\ncontrol_c = 70\n")
        self.watcher = PolicyWatcher(self.load, self.clock, load(self.sources))

    def load(self) -> Resolved:
        self.reads += 1
        return load(self.sources)

    def look(self) -> Reloaded | Rejected | None:
        """The next time that the watcher looks."""
        self.clock.advance(2.0)
        return self.watcher.poll()

    @property
    def control_c(self) -> float:
        return self.watcher.current.policy.thermal.control_c


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def age(path: Path, seconds: float = 3600.0) -> None:
    """Give a file's contents an older time of change."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def renamed(path: Path, text: str) -> None:
    """As most editors save: a new file gets the name."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)


def removed_before(path: Path, text: str) -> None:
    """As editors save that keep the old file as a backup."""
    os.replace(path, path.with_suffix(".bak"))
    path.write_text(text)


def older(path: Path, text: str) -> None:
    """As `cp --preserve` does: the file is another, and older than the one before."""
    beside = path.with_suffix(".old")
    beside.write_text(text)
    age(beside)
    os.replace(beside, path)


@pytest.mark.parametrize("save", [in_place, renamed, removed_before, older])
def test_a_save_is_noticed_however_it_is_done(
    save: Callable[[Path, str], None], setup: Setup
) -> None:
    assert setup.look() is None
    for control in (72, 74):
        save(setup.file, f"[thermal]\ncontrol_c = {control}\n")
        outcome = setup.look()
        assert isinstance(outcome, Reloaded)
        assert outcome.policy.thermal.control_c == control == setup.control_c
        assert outcome.diff == (f"thermal.control_c: {control - 2}.0 -> {control}.0",)
        assert outcome.resolved.origin("thermal.control_c") == f"--policy: {setup.file}:2"
        assert setup.look() is None


def test_two_saves_within_one_tick_of_the_file_system(setup: Setup) -> None:
    # Same file, same size, as good as the same time: at least the last one must count.
    for control in range(10, 60):
        setup.file.write_text(f"[thermal]\ncontrol_c = {control + 20}\non_c = {control}\n")
        setup.look()
        assert setup.control_c == control + 20


def test_looks_every_two_seconds(setup: Setup) -> None:
    renamed(setup.file, "[thermal]\ncontrol_c = 75\n")
    setup.clock.advance(1.9)
    assert setup.watcher.poll() is None and setup.reads == 0
    setup.clock.advance(0.1)
    assert isinstance(setup.watcher.poll(), Reloaded) and setup.reads == 1


def test_files_that_stay_as_they_are_are_not_read_again(setup: Setup) -> None:
    shipped = Path(policy_file.__file__).parent.parent / "assets" / "presets" / "longest.toml"
    setup.sources = Sources(path=shipped, user=setup.user, system=setup.system)
    setup.watcher = PolicyWatcher(setup.load, setup.clock)
    assert setup.reads == 1
    assert [setup.look() for _ in range(5)] == [None] * 5 and setup.reads == 1


def test_a_broken_file_keeps_the_old_policy_and_is_said_once(setup: Setup) -> None:
    setup.file.write_text("[thermal]\ncontrol_c = 7")  # half of it
    outcome = setup.look()
    assert isinstance(outcome, Rejected) and setup.control_c == 70
    assert isinstance(outcome.error, PolicyError)
    (problem,) = outcome.error.problems
    assert problem.key == "thermal.control_c" and problem.place == str(setup.file)
    setup.file.write_text("[thermal]\ncontrol_c = ")
    assert isinstance(setup.look(), Rejected), "another mistake"
    for _ in range(3):
        assert setup.look() is None
        # Saved again with the same mistake: nothing new to say.
        renamed(setup.file, "[thermal]\ncontrol_c = ")
    assert setup.control_c == 70
    setup.file.write_text("[thermal]\ncontrol_c = 72\n")
    outcome = setup.look()
    assert isinstance(outcome, Reloaded) and outcome.diff == ("thermal.control_c: 70.0 -> 72.0",)
    setup.file.write_text("[thermal]\ncontrol_c = ")
    assert isinstance(setup.look(), Rejected), "the same mistake again, after it was mended"


def test_a_mended_file_that_is_as_before_is_no_news(setup: Setup) -> None:
    text = setup.file.read_text()
    setup.file.write_text("[therm")
    assert isinstance(setup.look(), Rejected)
    setup.file.write_text(f"# no new value\n{text}")
    assert setup.look() is None and setup.control_c == 70
    setup.file.write_text("[therm")
    assert isinstance(setup.look(), Rejected)


def test_a_deleted_policy_keeps_the_old_one(setup: Setup) -> None:
    text = setup.file.read_text()
    setup.file.unlink()
    outcome = setup.look()
    assert isinstance(outcome, Rejected) and "cannot be read: No such file" in str(outcome.error)
    assert setup.look() is None and setup.control_c == 70
    setup.file.write_text(text.replace("70", "71"))
    assert isinstance(setup.look(), Reloaded) and setup.control_c == 71


def test_drop_ins_come_and_go(setup: Setup) -> None:
    setup.system.mkdir()
    assert setup.look() is None
    drop_in = setup.system / "10.toml"
    drop_in.write_text("levels.max_bits = 6\n")
    outcome = setup.look()
    assert isinstance(outcome, Reloaded) and outcome.diff == ("levels.max_bits: 8 -> 6",)
    drop_in.write_text("levels.max_bits = 4\n")
    outcome = setup.look()
    assert isinstance(outcome, Reloaded) and outcome.diff == ("levels.max_bits: 6 -> 4",)
    (setup.system / "README").write_text("not a policy")
    assert setup.look() is None
    drop_in.rename(setup.system / "10.toml.off")
    outcome = setup.look()
    assert isinstance(outcome, Reloaded) and outcome.diff == ("levels.max_bits: 4 -> 8",)


def test_the_users_policy_comes_and_goes(setup: Setup) -> None:
    setup.user.parent.mkdir()
    setup.user.write_text("battery.until = 18:00:00\nthermal.control_c = 60\n")
    outcome = setup.look()
    assert isinstance(outcome, Reloaded), "weaker than the other file, which keeps its key"
    assert outcome.diff == ("battery.until: none -> 18:00:00",) and setup.control_c == 70
    setup.user.unlink()
    outcome = setup.look()
    assert isinstance(outcome, Reloaded) and outcome.diff == ("battery.until: 18:00:00 -> none",)


PLACES = ("policy.toml", "home/policy.toml", "policy.d/1.toml", "policy.d/2.toml")
CONTENTS = (
    None,  # no such file
    "",
    "thermal.control_c = 70\n",
    "thermal.control_c = 71\n",
    "levels.max_bits = 4\n",
    "levels.max_bits = 2\nlevels.min_bits = 2\n",
    "levels.min_bits = 4\n",
    "levels.max_bits = 9\n",
    "[thermal",
)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(PLACES), st.sampled_from(CONTENTS), st.booleans()), max_size=12
    )
)
def test_the_newest_policy_in_order_counts_whatever_happens_to_the_files(
    changes: list[tuple[str, str | None, bool]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "home").mkdir()
        (root / "policy.d").mkdir()
        setup = Setup(root)
        for name, content, at_once in changes:
            path = root / name
            if content is None:
                path.unlink(missing_ok=True)
            elif at_once:
                in_place(path, content)
            else:
                renamed(path, content)
            before = setup.watcher.current.policy
            outcome = setup.look()
            try:
                expected = load(setup.sources).policy
            except PolicyError as error:
                assert outcome is None or (
                    isinstance(outcome, Rejected) and outcome.error.message == error.message
                )
                assert setup.watcher.current.policy == before
                continue
            assert setup.watcher.current.policy == expected
            assert (outcome is None) == (expected == before)
            if isinstance(outcome, Reloaded):
                assert outcome.policy == expected and outcome.diff == differences(before, expected)


def test_force_reads_at_once_and_always_answers(setup: Setup) -> None:
    outcome = setup.watcher.poll(force=True)
    assert isinstance(outcome, Reloaded) and outcome.diff == ()
    setup.file.write_text("[thermal]\ncontrol_c = 71\n")
    outcome = setup.watcher.poll(force=True)
    assert isinstance(outcome, Reloaded) and outcome.diff == ("thermal.control_c: 70.0 -> 71.0",)
    setup.file.write_text("[thermal")
    assert isinstance(setup.watcher.poll(force=True), Rejected)
    assert isinstance(setup.watcher.poll(force=True), Rejected)
    assert setup.control_c == 71


def test_a_change_between_the_first_reading_and_the_watcher_is_not_lost(setup: Setup) -> None:
    resolved = load(setup.sources)
    setup.file.write_text("[thermal]\ncontrol_c = 79\n")
    watcher = PolicyWatcher(setup.load, setup.clock, resolved)
    setup.clock.advance(2.0)
    outcome = watcher.poll()
    assert isinstance(outcome, Reloaded) and outcome.policy.thermal.control_c == 79


def test_a_watcher_that_starts_with_a_mistake_says_so(setup: Setup) -> None:
    setup.file.write_text("[thermal")
    with pytest.raises(PolicyError):
        PolicyWatcher(setup.load, setup.clock)
