"""A real systemd of our own, which sees neither other processes nor other units and leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from waiting import wait_for

BINARY = Path("/lib/systemd/systemd")

# $0: systemd's binary. The shell stays PID 1 of the namespace, as systemd would else be a system's
# manager. A file system of its own on /run says that systemd runs, to it alone.
BEGIN = """\
mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/system /run/systemd/inaccessible/dir /run/user/0
cd /run/systemd/inaccessible
mkfifo fifo; mknod chr c 0 0; mknod blk b 0 0; touch reg sock
cd /
setpriv --bounding-set=-setpcap,-sys_admin "$0" --user --unit=basic.target >"$HOME/systemd.log" 2>&1 &
until systemctl --user is-active --quiet basic.target; do sleep 0.05; done 2>/dev/null
echo ready
exec cat
"""


class CannotStart(Exception):
    """Nobody may start systemd here; the reason is its text."""


class ServiceManager:
    """``systemd --user`` in its own namespaces and its own part of the unified cgroups. Root starts it,
    but it may neither mount nor drop capabilities, as that of an ordinary user.

    ``home``: an empty folder for what it keeps. CannotStart where namespaces or cgroups are not ours.
    """

    def __init__(self, home: Path) -> None:
        self._environment = os.environ | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": "/run/user/0",
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        self._environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
        self._group = self._own_group()
        # One who joins a group before it starts anything: `cat` holds the rest until its input ends.
        begin = f'echo $$ > {self._group}/cgroup.procs && exec "$@"'
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = ["sh", "-c", begin, "sh", *apart, "--cgroup", "sh", "-ec", BEGIN, str(BINARY)]
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._holder = subprocess.Popen(
            command, **pipe, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            said = self._holder.communicate()[1].strip()
            self.close()
            raise CannotStart(said)
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        self._inside = children.read_text().split()[0]

    def _own_group(self) -> Path:
        found = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        places = [Path(target) for _, target, kind, *_ in found if kind == "cgroup2"]
        if os.geteuid() or not places or shutil.which("nsenter") is None:
            raise CannotStart("needs root, cgroup2 and util-linux")
        group = places[0] / f"edge-app-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError as error:
            raise CannotStart(f"{group}: {error.strerror}") from None
        return group

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """A command beside systemd, where ``systemctl --user`` reaches it."""
        enter = ["nsenter", f"--target={self._inside}", "--mount", "--pid", "--cgroup"]
        words = [str(word) for word in command]
        return subprocess.run(
            [*enter, *words], env=self._environment, capture_output=True, text=True, timeout=120
        )

    def systemctl(self, *arguments: str) -> str:
        """What it prints; AssertionError with what it says if it fails."""
        done = self.run("systemctl", "--user", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def shown(self, unit: str) -> dict[str, str]:
        """The properties of a unit."""
        lines = self.systemctl("show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def close(self) -> None:
        """Ends it and all that it has started."""
        self._holder.kill()
        self._holder.communicate()
        # The namespace's first process dies with its parent, and all others with it.
        wait_for(lambda: "populated 0" in (self._group / "cgroup.events").read_text())
        for folder in [*sorted(self._group.rglob("*/"), reverse=True), self._group]:
            if folder.is_dir():
                folder.rmdir()
