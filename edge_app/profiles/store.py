"""Profiles on disk: what `edge-app profile` measured, one JSON file for each set of conditions.

A profile holds for one model, CPU, number of threads, memory mode and instruction set. It lies below
``$XDG_CACHE_HOME/edge-app/profiles``: it can be measured again, and whatever cannot be read, or is
of another format, is left alone and named in a warning.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from edge_app.errors import EXIT_BUG, AppError

FORMAT: Final = "edge-app/profile/1"

log = logging.getLogger(__name__)


class Record(BaseModel):
    """Nothing is converted, and nothing unknown is accepted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Conditions(Record):
    """What a profile holds for. ``model_sha256``: of the model's file. ``cpu``: what identifies
    it, see ``cpu_id``. ``memory``: one of ``models.MEMORY``."""

    model_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    cpu: str
    threads: int = Field(ge=1)
    memory: str
    isa: str

    @property
    def file_name(self) -> str:
        """The same for the same conditions, another for any others."""
        others = "\n".join((self.cpu, str(self.threads), self.memory, self.isa))
        return f"{self.model_sha256[:16]}-{hashlib.sha256(others.encode()).hexdigest()[:16]}.json"


class LevelProfile(Record):
    """One level. ``median_s`` and ``p90_s``: seconds of a run. ``spread``: the interquartile range
    as a share of the median. ``joules``: of a run, above what the device needs anyway; None if
    nothing could tell."""

    bits: int = Field(ge=1, le=16)
    runs: int = Field(ge=1)
    median_s: FiniteFloat = Field(gt=0)
    p90_s: FiniteFloat = Field(gt=0)
    spread: FiniteFloat = Field(ge=0)
    joules: FiniteFloat | None = Field(ge=0)


class StoredProfile(Record):
    """What was measured, and how. ``idle_w``: power while nothing ran. ``energy_source``: what
    measured energy, "" for nothing; ``whole_device``: whether that is all that the device takes.
    ``governor``: of the CPU's frequency. ``warnings``: what was wrong with the measurement."""

    format: Literal["edge-app/profile/1"]
    conditions: Conditions
    model: str
    levels: tuple[LevelProfile, ...] = Field(min_length=1)
    idle_w: FiniteFloat | None = Field(ge=0)
    energy_source: str
    whole_device: bool
    governor: str
    versions: dict[str, str]
    measured_at: str
    warnings: tuple[str, ...]


def default_directory() -> Path:
    """Where profiles of this user are."""
    home = os.environ.get("XDG_CACHE_HOME")
    base = Path(home) if home else Path.home() / ".cache"
    return base / "edge-app" / "profiles"


def store(profile: StoredProfile, directory: Path) -> Path:
    """Write ``profile`` beside its file and rename it. AppError (exit code 1) if that fails."""
    path = directory / profile.conditions.file_name
    beside = directory / f".{path.name}.{os.getpid()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        beside.write_text(profile.model_dump_json(indent=2) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise AppError(
            f"{path}: the profile cannot be written: {error.strerror}; "
            "set XDG_CACHE_HOME to a directory that can be",
            EXIT_BUG,
        ) from None
    return path


def load(conditions: Conditions, directory: Path) -> StoredProfile | None:
    """The profile for ``conditions``; None if there is none that can be used."""
    path = directory / conditions.file_name
    try:
        profile = StoredProfile.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s is not used: %s", path, error.strerror)
        return None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "file"
        log.warning("%s is not used: it is no %s: %s: %s", path, FORMAT, where, problem["msg"])
        return None
    if profile.conditions != conditions:
        log.warning("%s is not used: it was measured under other conditions", path)
        return None
    return profile
