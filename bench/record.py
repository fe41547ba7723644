"""One result of one benchmark, as one JSON line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SUBJECTS = ("tacit", "tenseal", "concrete-ml", "orion", "heir", "openfhe", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Record:
    """A measured figure with everything needed to judge it.

    Attributes:
        question: the benchmark question.
        workload: which input shape, for example `one row`.
        subject: `tacit` or a peer.
        metric: for example `server_seconds`.
        value: the median over `runs`, or the single figure.
        unit: `s`, `bytes`, `1` (a ratio or probability).
        threads: threads the subject's server side was allowed.
        parameters: the scheme's parameters, in the subject's words.
        runs: number of measured runs behind `value`, warm-up excluded.
        hardware: CPU model, cores, memory.
        commit: commit of this repository, with `-dirty` if there were changes.
        samples: the single measurements, in the order taken.
        load: the machine's load average at the start.
        time: when, in UTC.
    """

    question: str
    workload: str
    subject: str
    metric: str
    value: float
    unit: str
    threads: int
    parameters: dict[str, Any]
    runs: int
    hardware: dict[str, Any]
    commit: str
    samples: list[float] = field(default_factory=list)
    load: float = 0.0
    time: str = ""

    def __post_init__(self) -> None:
        if self.subject not in SUBJECTS:
            raise ValueError(f"unknown subject {self.subject!r}: expected one of {SUBJECTS}")
        if self.runs < 1:
            raise ValueError(f"{self.metric}: a result needs at least one run, got {self.runs}")

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=False)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all records of one run share: machine, commit, load, time."""

    hardware: dict[str, Any]
    commit: str
    load: float
    time: str

    def record(
        self,
        question: str,
        workload: str,
        subject: str,
        metric: str,
        value: float,
        unit: str,
        parameters: dict[str, Any],
        *,
        threads: int = 1,
        samples: Sequence[float] = (),
    ) -> Record:
        """Return a record of a figure measured here and now; see `Record`."""
        return Record(
            question=question,
            workload=workload,
            subject=subject,
            metric=metric,
            value=value,
            unit=unit,
            threads=threads,
            parameters=parameters,
            runs=max(1, len(samples)),
            hardware=self.hardware,
            commit=self.commit,
            samples=list(samples),
            load=self.load,
            time=self.time,
        )


def look_around() -> Surroundings:
    """Describe the machine and the repository as they are now."""
    return Surroundings(
        hardware=describe_hardware(),
        commit=describe_commit(),
        load=round(os.getloadavg()[0], 2),
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def describe_hardware() -> dict[str, Any]:
    """Return the CPU's model, the cores this process may use and the memory in GiB."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
    }


def describe_commit() -> str:
    """Return the current commit, `-dirty` appended when tracked files differ."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if not commit:
        return "uncommitted"
    return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit


def append(records: Iterable[Record], path: Path) -> None:
    """Append records to a file of JSON lines, which is made if it is absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        lines.writelines(record.to_json() + "\n" for record in records)


def read(path: Path) -> list[Record]:
    """Read a file of JSON lines written by `append`."""
    text = path.read_text(encoding="utf-8")
    return [Record(**json.loads(line)) for line in text.splitlines() if line.strip()]


def newest(records: Iterable[Record]) -> list[Record]:
    """Return the last record of each figure."""
    found: dict[tuple[str, str, str, str], Record] = {}
    for record in records:
        found[record.question, record.workload, record.subject, record.metric] = record
    return list(found.values())


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
