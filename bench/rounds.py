"""Run subjects side by side: rounds alternate, so that a busy moment hits all of them alike."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.subjects import FailedError, SkippedError, Subject, find_launch, split_name
from bench.task import Task
from bench.worker import Ready, Round


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to measure.

    Attributes:
        rounds: measured rounds per subject, after one warm-up.
        seconds_per_subject: a subject that has used this much drops out of later rounds; it always
            has at least one measured round.
    """

    rounds: int
    seconds_per_subject: float


@dataclass(slots=True)
class Outcome:
    """What became of one subject in one task.

    Attributes:
        name: the subject, with its variant if it has one (`tenseal:logits`).
        skipped: why it did not take part.
        failed: why it broke.
        ready: its answer to the setup.
        rounds: measured rounds, warm-up excluded; round i had the rows of group i.
        peak_rss_bytes: its peak resident memory.
    """

    name: str
    skipped: str = ""
    failed: str = ""
    ready: Ready | None = None
    rounds: list[Round] = field(default_factory=list)
    peak_rss_bytes: int = 0

    @property
    def subject(self) -> str:
        """The subject without its variant."""
        return split_name(self.name)[0]

    @property
    def variant(self) -> str:
        """The variant, or "" for the main one."""
        return split_name(self.name)[1]

    @property
    def measured(self) -> bool:
        """Whether there are figures."""
        return self.ready is not None and bool(self.rounds)


@dataclass(slots=True)
class _Runner:
    outcome: Outcome
    subject: Subject | None = None
    spent_seconds: float = 0.0

    @property
    def running(self) -> bool:
        return self.subject is not None


Say = Callable[[str], None]


def run_side_by_side(task: Task, names: Sequence[str], pace: Pace, say: Say) -> list[Outcome]:
    """Measure a task with several subjects.

    Args:
        task: the workload.
        names: subjects, in the order in which they take turns.
        pace: rounds and time limits.
        say: takes one line of progress.

    Returns:
        One outcome per name, in order. No subject's failure stops the others.
    """
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as folder:
        arrays_path = task.save_arrays(Path(folder))
        runners = [_Runner(Outcome(name)) for name in names]
        try:
            for runner in runners:
                _start(runner, task, arrays_path, say)
            for index in range(-1, pace.rounds):
                _take_turns(runners, index, pace)
            for runner in runners:
                _guard(runner, lambda chosen: _close(chosen))
        finally:
            for runner in runners:
                if runner.subject is not None:
                    runner.subject.end()
    return [runner.outcome for runner in runners]


def _start(runner: _Runner, task: Task, arrays_path: Path, say: Say) -> None:
    name = runner.outcome.name
    say(f"{task.workload}: setting up {name}")

    def begin(chosen: _Runner) -> None:
        chosen.subject = Subject(find_launch(name, say=say), arrays_path.parent)
        chosen.outcome.ready = chosen.subject.setup(task, arrays_path)

    _guard(runner, begin)
    if runner.outcome.skipped:
        say(f"{task.workload}: {name} skipped: {runner.outcome.skipped}")
    if runner.outcome.failed:
        say(f"{task.workload}: {name} FAILED: {runner.outcome.failed}")


def _take_turns(runners: Sequence[_Runner], index: int, pace: Pace) -> None:
    """Give each running subject one turn; the turn before the first (index -1) only warms up."""
    for runner in runners:
        exhausted = runner.spent_seconds > pace.seconds_per_subject and runner.outcome.rounds
        if runner.running and not exhausted:
            _guard(runner, lambda chosen: _turn(chosen, index))


def _turn(runner: _Runner, index: int) -> None:
    assert runner.subject is not None
    start = time.perf_counter()
    measured = runner.subject.round(max(index, 0))
    runner.spent_seconds += time.perf_counter() - start
    if index >= 0:
        runner.outcome.rounds.append(measured)


def _close(runner: _Runner) -> None:
    if runner.subject is not None:
        runner.outcome.peak_rss_bytes = runner.subject.close()


def _guard(runner: _Runner, action: Callable[[_Runner], None]) -> None:
    """Run an action; turn its failure into the subject's outcome and let the others go on."""
    try:
        action(runner)
        return
    except SkippedError as error:
        runner.outcome.skipped = str(error)
    except FailedError as error:
        runner.outcome.failed = str(error)
    if runner.subject is not None:
        runner.subject.end()
        runner.subject = None
