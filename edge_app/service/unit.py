"""The systemd unit, and putting it in its place."""

from __future__ import annotations

import grp
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_app.errors import EXIT_BUG, EXIT_USAGE, AppError

NAME = "edge-app.service"
SYSTEM_UNITS = Path("/etc/systemd/system")

# What each line is for stands in systemd.exec(5) and systemd.service(5); the comments say why here.
UNIT = """\
[Unit]
Description=edge-app: adaptive vision inference
Documentation=man:systemd.service(5)
After=network-online.target
Wants=network-online.target
# Without a limit: a camera that is unplugged for a night must not stop the service for good.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
SyslogIdentifier=edge-app
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=2
# Wrong options and unusable models do not mend themselves.
RestartPreventExitStatus=2 5
# Fed only while frames and the governor make progress.
WatchdogSec=30
TimeoutStopSec=10
{identity}
StateDirectory=edge-app
RuntimeDirectory=edge-app
CacheDirectory=edge-app
Environment=XDG_CACHE_HOME=%C XDG_CONFIG_HOME=%E PYTHONUNBUFFERED=1
# It reads sensors and a camera, writes its state, and may be asked over the network.
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
NoNewPrivileges=yes
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-media rw
DeviceAllow=/dev/vcio rw
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
ProtectProc=invisible
{capabilities}
UMask=0077
# A leak ends in a restart and not in a machine without memory.
MemoryMax=60%
OOMPolicy=stop

[Install]
WantedBy={target}
"""

# Each of them takes capabilities away, for which a user's own systemd would need one (exit status 218).
SYSTEM_CAPABILITIES = """\
CapabilityBoundingSet=
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes"""
DEVICE_GROUPS = ("video", "render")


@dataclass(frozen=True)
class ServiceOptions:
    """``arguments``: those of ``edge-app run``. ``user``: a unit of this user instead of the
    system's. ``show``: print it and change nothing."""

    arguments: tuple[str, ...]
    user: bool = False
    show: bool = False


def unit_text(options: ServiceOptions) -> str:
    """The whole unit file."""
    program = [sys.executable, "-m", "edge_app", "run", *options.arguments]
    # systemd expands % and $ itself, and takes shell-like quotes.
    command = " ".join(shlex.quote(word).replace("%", "%%").replace("$", "$$") for word in program)
    home_holds_program = Path(sys.prefix).resolve().is_relative_to(Path.home())
    return UNIT.format(
        command=command,
        identity="# As the user whose unit this is." if options.user else _system_identity(),
        capabilities="# It has no capabilities that could be taken away."
        if options.user
        else SYSTEM_CAPABILITIES,
        home="read-only" if options.user or home_holds_program else "yes",
        target="default.target" if options.user else "multi-user.target",
    )


def _system_identity() -> str:
    """A user of its own, in those groups for cameras and GPUs that exist here: systemd starts nothing
    that is to be in another one."""
    known = {group.gr_name for group in grp.getgrall()}
    groups = " ".join(name for name in DEVICE_GROUPS if name in known)
    return f"DynamicUser=yes\nSupplementaryGroups={groups}"


def install(options: ServiceOptions) -> None:
    """Write the unit and have systemd read it; starting it is the user's own step.

    AppError: exit code 2 where systemd or a permission is missing.
    """
    text = unit_text(options)
    if options.show:
        print(text, end="")
        return
    if shutil.which("systemctl") is None:
        raise AppError(
            "this machine has no systemd; edge-app service install --show prints the unit",
            EXIT_USAGE,
        )
    directory = _user_units() if options.user else SYSTEM_UNITS
    path = directory / NAME
    beside = path.with_name(f".{NAME}.{os.getpid()}")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        raise AppError(
            f"{path}: {error.strerror}; run it with sudo, or use --user", EXIT_USAGE
        ) from None
    manager = ["systemctl", *(["--user"] if options.user else [])]
    reloaded = subprocess.run([*manager, "daemon-reload"], capture_output=True, text=True)
    print(f"{path} is written")
    if reloaded.returncode:
        print(f"systemd does not answer: {reloaded.stderr.strip()}", file=sys.stderr)
    print(f"start it, now and at every boot: {' '.join(manager)} enable --now {NAME}")


def status(user: bool) -> int:
    """Print what systemd says of the service, and why it runs at its level. Returns an exit code."""
    if shutil.which("systemctl") is None:
        raise AppError("this machine has no systemd", EXIT_USAGE)
    properties = "ActiveState,SubState,MainPID,NRestarts,StatusText,Result,MemoryCurrent"
    manager = ["systemctl", *(["--user"] if user else [])]
    shown = subprocess.run(
        [*manager, "show", NAME, f"--property={properties}"], capture_output=True, text=True
    )
    if shown.returncode:
        raise AppError(f"systemd does not answer: {shown.stderr.strip()}", EXIT_BUG)
    values = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    print(f"{NAME}: {values.get('ActiveState')} ({values.get('SubState')})")
    print(f"  restarts {values.get('NRestarts')}, last result {values.get('Result')}")
    # systemd keeps the last one of a process that has ended.
    if values.get("StatusText") and values.get("MainPID") != "0":
        print(f"  {values['StatusText']}")
    return 0 if values.get("ActiveState") == "active" else 3


def _user_units() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "systemd" / "user"
