"""Does `edge-app run` grow? A real run with everything on that leaks hide in, and its memory's slope.

    .venv/bin/python tests/edge_app/soak.py --minutes 60

A camera on loopback that stalls, resets, sends garbage and changes its size; records with rotation,
video and crops; frames that are run twice; a policy that is edited, also wrongly; `edge-app why`;
clients of `--serve` that come and go, some without saying so. Ends with 0 if the memory is shown to
grow by less than 1 MiB an hour, with 1 if it is shown to grow by more, and with 2 if the time was
too short to tell.

What is measured: anonymous resident memory, with what was swapped out (RssAnon + VmSwap of
proc(5)). Pages of files, which the kernel fetches and drops as it likes, are reported and not
judged. The slope is the median of the slopes between all pairs of points (Theil, Sen), after the
warm-up; a point is the smallest value of ten seconds, in an hour of thirty, as what is held for a
moment is no growth. Its bounds are those of the middle 95 % of slopes when whole blocks of
neighbouring points are drawn again and again: neighbours resemble each other, and a formula for
independent points would promise too much.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from stream_servers import PictureServer

from edge_app.errors import AppError
from edge_app.why import ask, running

BOUND = 1.0
"""MiB an hour."""
POINT_S = 10.0
MOST_POINTS = 120
"""Of longer runs a point is the smallest value of more than ten seconds."""
FPS = 30.0
STALL_S = 6.5
"""More than the five seconds after which a stall is noticed."""
PAUSE_S = 5.0
"""Between two troubles: a camera that is never well for ten seconds is tried ever more seldom."""
RESAMPLES = 400
BLOCK = 5
"""Points that are drawn together."""
ADDRESS = "127.0.0.1:0"


@dataclass(frozen=True)
class Slope:
    """MiB an hour: the estimate, and between which bounds it lies with 95 %."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.2f} MiB/h (95 % between {self.low:+.2f} and {self.high:+.2f})"


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median slope between all pairs of points, whose times grow; 0 for less than two."""
    t, v = np.asarray(times), np.asarray(values)
    first, second = np.triu_indices(len(t), 1)
    slopes = (v[second] - v[first]) / (t[second] - t[first])
    return float(np.median(slopes)) if slopes.size else 0.0


def slope_of(
    seconds: Sequence[float], bytes_: Sequence[float], resamples: int = RESAMPLES
) -> Slope:
    """Of points that are ordered in time. The bounds come from a moving-block bootstrap."""
    hours, sizes = np.asarray(seconds) / 3600, np.asarray(bytes_) / 2**20
    value = theil_sen(hours, sizes)
    left = sizes - value * hours
    generator = np.random.default_rng(0)
    count, block = len(hours), max(1, min(BLOCK, len(hours) // 4))
    found = []
    for _ in range(resamples):
        starts = generator.integers(0, count - block + 1, -(-count // block))
        noise = np.concatenate([left[start : start + block] for start in starts])[:count]
        found.append(theil_sen(hours, value * hours + noise))
    low, high = np.percentile(found, [2.5, 97.5])
    return Slope(value, float(low), float(high))


def points(
    samples: Sequence[tuple[float, int]], warm_up_s: float, every_s: float = POINT_S
) -> tuple[list[float], list[int]]:
    """Time and smallest value of every ``every_s`` seconds after the warm-up."""
    kept = [(time_, size) for time_, size in samples if time_ >= warm_up_s]
    groups = itertools.groupby(kept, lambda sample: int((sample[0] - warm_up_s) // every_s))
    smallest = [min(group, key=lambda sample: sample[1]) for _, group in groups]
    return [time_ for time_, _ in smallest], [size for _, size in smallest]


def memory(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status. OSError if the process is gone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    wanted = ("VmRSS", "RssAnon", "RssFile", "VmSwap", "VmHWM")
    found = {name: 0 for name in wanted}
    for line in lines:
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found


# --- what goes on around the run ---------------------------------------------------------------


class Disturbance:
    """Calls one of ``actions`` after the other until it is left; an error is kept in ``error``."""

    def __init__(self, pause_s: float, *actions: Callable[[threading.Event], None]) -> None:
        self._pause_s = pause_s
        self._actions = itertools.cycle(actions)
        self._ended = threading.Event()
        self.count = 0
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s):
            try:
                next(self._actions)(self._ended)
                self.count += 1
            except Exception as error:
                self.error = error
                return

    def close(self) -> None:
        self._ended.set()
        self._thread.join(timeout=30.0)


def camera_troubles(server: PictureServer) -> tuple[Callable[[threading.Event], None], ...]:
    """Everything that a camera does to those who read from it."""

    def resize(ended: threading.Event) -> None:
        server.size = random.choice([(240, 320), (120, 160), (241, 319)])

    def reset(ended: threading.Event) -> None:
        server.reset_after = 1
        ended.wait(0.3)
        server.reset_after = None

    def garbage(ended: threading.Event) -> None:
        server.garbage.set()
        ended.wait(1.0)
        server.garbage.clear()

    def stall(ended: threading.Event) -> None:
        server.stall.set()
        ended.wait(STALL_S)
        server.stall.clear()

    def unplug(ended: threading.Event) -> None:
        server.cut.set()
        ended.wait(1.0)
        server.cut.clear()

    return resize, reset, garbage, resize, stall, unplug


def policy_edits(path: Path) -> tuple[Callable[[threading.Event], None], ...]:
    def write(text: str) -> Callable[[threading.Event], None]:
        return lambda ended: path.write_text(text) and None

    return (
        write("[levels]\nmax_bits = 6\n"),
        write("[levels]\nmax_bits = 99\n"),
        write("[levels]\nmax_bits = 8\n"),
    )


def questions(process: subprocess.Popen[bytes]) -> Callable[[threading.Event], None]:
    def ask_and_signal(ended: threading.Event) -> None:
        with contextlib.suppress(AppError):  # a busy machine may take its time to answer
            if process.pid in running():
                assert ask(process.pid)["pid"] == process.pid
        process.send_signal(random.choice([signal.SIGUSR1, signal.SIGHUP]))

    return ask_and_signal


def visits(url: str) -> tuple[Callable[[threading.Event], None], ...]:
    """Clients of --serve: some ask once, some watch for a while and go without a word."""

    def ask(path: str) -> Callable[[threading.Event], None]:
        def get(ended: threading.Event) -> None:
            with urllib.request.urlopen(url + path, timeout=30) as answer:
                assert answer.read()

        return get

    def watch(path: str) -> Callable[[threading.Event], None]:
        def read_a_while(ended: threading.Event) -> None:
            # Nothing comes while the camera is gone, and nobody waits for it.
            with contextlib.suppress(TimeoutError):
                with urllib.request.urlopen(url + path, timeout=5) as answer:
                    for _ in range(20):
                        if ended.is_set() or not answer.read1(1 << 16):
                            return

        return read_a_while

    asked = ("", "metrics", "state.json", "healthz", "history.json", "picture.jpg")
    return *map(ask, asked), watch("picture.mjpg"), watch("events")


# --- the run -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Soaked:
    """What came out. ``frames``: results; ``stirred``: how often each disturbance acted."""

    slope: Slope
    resident: Slope
    warm_up_s: float
    seconds: float
    points: int
    frames: int
    peak: int
    end: int
    exit_code: int
    stirred: dict[str, int]
    messages: str
    samples: list[tuple[float, int]]

    def report(self) -> str:
        stirred = ", ".join(f"{count} {name}" for name, count in self.stirred.items())
        mebibytes = [f"{size / 2**20:.1f}" for size in (self.end, self.peak)]
        return "\n".join(
            (
                f"{self.seconds / 60:.1f} minutes after {self.warm_up_s:.0f} s of warm-up, "
                f"{self.frames} frames; {stirred}",
                f"anonymous memory: {self.slope}",
                f"all resident memory: {self.resident}",
                f"at the end {mebibytes[0]} MiB resident, {mebibytes[1]} at the peak",
                f"method: Theil-Sen slope of {self.points} points, each the smallest value of "
                f"{self.seconds / max(1, self.points):.0f} s; bounds by {RESAMPLES} moving-block resamples",
            )
        )


@contextlib.contextmanager
def started(folder: Path, camera: str, policy: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real program; what it says goes to ``folder/messages``."""
    options = ["--camera", f"{camera}/stream.mjpg", "--model", "digits", "--policy", policy]
    options += ["--set", "confidence.start_bits=2", "--set", "confidence.escalate_below=1"]
    options += ["--jsonl", folder / "out.jsonl", "--jsonl-max-mb", "0.3", "--give-up", "0"]
    options += ["--save", folder / "out.mkv", "--save-crops", folder / "crops"]
    options += ["--state", folder / "state.json", "--serve", ADDRESS]
    with (folder / "messages").open("wb") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_app", "run", *map(str, options)],
            stdout=subprocess.DEVNULL,
            stderr=messages,
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def wait_for_address(process: subprocess.Popen[bytes], messages: Path) -> str:
    """What the program says about where its page is."""
    limit = time.monotonic() + 120.0
    while time.monotonic() < limit and process.poll() is None:
        for word in messages.read_text(errors="replace").split():
            if word.startswith("http://127.0.0.1:") and "stream.mjpg" not in word:
                return word.rstrip("/.,;") + "/"
        time.sleep(0.2)
    raise RuntimeError(f"it does not serve:\n{messages.read_text(errors='replace')}")


def frames_of(url: str) -> int:
    with urllib.request.urlopen(url + "metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith('edge_app_frames_total{result="ok"}'):
                return int(float(line.rpartition(" ")[2]))
    return 0


def soak(seconds: float, warm_up_s: float, folder: Path) -> Soaked:
    """Run for ``warm_up_s`` and then ``seconds``. RuntimeError if the program or a client fails."""
    os.environ["XDG_RUNTIME_DIR"] = str(folder)  # where `why` looks
    server = PictureServer()
    server.interval_s, server.size = 1 / FPS, (240, 320)
    policy = folder / "policy.toml"
    policy.write_text("[levels]\nmax_bits = 8\n")
    samples: list[tuple[float, int]] = []
    resident: list[tuple[float, int]] = []
    try:
        with started(folder, server.url, policy) as process:
            url = wait_for_address(process, folder / "messages")
            disturbances = {
                "camera troubles": Disturbance(PAUSE_S, *camera_troubles(server)),
                "policy edits": Disturbance(PAUSE_S, *policy_edits(policy)),
                "questions": Disturbance(1.0, questions(process)),
                "visits": Disturbance(1.0, *visits(url)),
            }
            began = time.monotonic()
            while (now := time.monotonic() - began) < warm_up_s + seconds:
                if process.poll() is not None:
                    raise RuntimeError("it ended: " + (folder / "messages").read_text()[-2000:])
                state = memory(process.pid)
                samples.append((now, state["RssAnon"] + state["VmSwap"]))
                resident.append((now, state["VmRSS"]))
                time.sleep(0.5)
            for name, disturbance in disturbances.items():
                disturbance.close()
                if disturbance.error is not None:
                    raise RuntimeError(f"{name}: {disturbance.error!r}")
            stirred = {name: each.count for name, each in disturbances.items()}
            frames = frames_of(url)
            process.terminate()
            exit_code = process.wait(timeout=60)
    finally:
        server.stop()
    every_s = max(POINT_S, seconds / MOST_POINTS)
    times, sizes = points(samples, warm_up_s, every_s)
    return Soaked(
        slope_of(times, sizes),
        slope_of(*points(resident, warm_up_s, every_s)),
        warm_up_s,
        seconds,
        len(times),
        frames,
        state["VmHWM"],
        state["VmRSS"],
        exit_code,
        stirred,
        (folder / "messages").read_text(errors="replace"),
        samples,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="after the warm-up")
    parser.add_argument("--warm-up", type=float, default=900.0, metavar="S")
    parser.add_argument(
        "--samples", type=Path, metavar="CSV", help="seconds and bytes, all of them"
    )
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="edge-app-soak-"))
    try:
        soaked = soak(arguments.minutes * 60, arguments.warm_up, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(soaked.report())
    if arguments.samples is not None:
        lines = (f"{time_:.1f},{size}\n" for time_, size in soaked.samples)
        arguments.samples.write_text("".join(lines))
    if soaked.slope.high < BOUND:
        print(f"it grows by less than {BOUND} MiB an hour")
        return 0
    grows = soaked.slope.low > BOUND
    print("it GROWS" if grows else "too short to tell; give it more --minutes")
    return 1 if grows else 2


if __name__ == "__main__":
    sys.exit(main())
