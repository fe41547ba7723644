"""What all benchmark questions share: options in, records out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.record import Record, Surroundings, append
from bench.report import records_of, show
from bench.rounds import Outcome, Pace, run_side_by_side
from bench.subjects import split_name
from bench.task import Task

DEFAULT_PEERS = ("tenseal", "concrete-ml", "orion", "openfhe")


@dataclass(frozen=True, slots=True)
class Options:
    """The command line's options.

    Attributes:
        quick: few rounds and no peer that needs half a minute per prediction.
        peers: peers that may take part.
        rounds: measured rounds, or None for the question's own number.
        heart: folder with the four hospitals' files.
        write_cost_table: replace the compiler's table of operation times.
        backend: the backend that `operations`, `predicted` and `memory` look at.
        sizes: base-2 logarithms of N for `engine`, or none for its own choice.
        threads: numbers of threads for `engine`, or none for its own choice.
        instructions: instruction set of the native kernels for `engine`, or None for the best.
        kills: how often `training` kills the server.
        models: folder with the ONNX files of `deep`.
        data: folder with the images of `deep`.
        resume: file of results to which `bootstrap` adds as it goes, and which it does not measure
            again.
        only: parts of `training` to run; none means all.
        results: file of results; None writes nothing before a question ends.
    """

    quick: bool = False
    peers: Sequence[str] = DEFAULT_PEERS
    rounds: int | None = None
    heart: Path | None = None
    write_cost_table: bool = False
    backend: str = "native"
    sizes: Sequence[int] = ()
    threads: Sequence[int] = ()
    instructions: str | None = None
    kills: int = 0
    models: Path | None = None
    data: Path | None = None
    resume: Path | None = None
    only: Sequence[str] = ()
    results: Path | None = None

    def parts(self, known: Iterable[str]) -> list[str]:
        """Return the parts of a question that are wanted, in the question's order."""
        return [part for part in known if not self.only or part in self.only]

    def pace(self, rounds: int) -> Pace:
        """Return the pace, given the question's own number of rounds."""
        chosen = self.rounds or (min(3, rounds) if self.quick else rounds)
        return Pace(chosen, seconds_per_subject=15.0 if self.quick else 60.0)

    def subjects(self, supported: Sequence[str]) -> list[str]:
        """Return who takes part: Tacit, the wanted peers that can, and the clear model.

        Args:
            supported: peers that have this workload, and variants (`tenseal:logits`).
        """
        wanted = {"tacit", *self.peers}
        return [
            "tacit",
            *(name for name in supported if split_name(name)[0] in wanted),
            "onnxruntime",
        ]


@dataclass(slots=True)
class Answer:
    """What a question found out.

    Attributes:
        records: all figures.
        failures: `subject: reason` of everything that broke (skipped peers are not failures).
        saved: how many of the records are in the file of results.
    """

    records: list[Record] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    saved: int = 0

    def save(self, path: Path | None) -> None:
        """Append the records that are not in the file yet; None writes nothing."""
        if path is not None and len(self.records) > self.saved:
            append(self.records[self.saved :], path)
            self.saved = len(self.records)


def measure(
    task: Task, names: Sequence[str], pace: Pace, around: Surroundings, console: Console
) -> tuple[Answer, list[Outcome]]:
    """Run one task side by side, print its table and return its records and outcomes."""
    with console.status(f"{task.question}: {task.workload}"):
        outcomes = run_side_by_side(
            task, names, pace, lambda line: console.print(line, style="dim")
        )
    show(console, task, outcomes)
    answer = Answer()
    for outcome in outcomes:
        answer.records += records_of(
            outcome, task, around, question=task.question, workload=task.workload
        )
        if outcome.failed:
            answer.failures.append(f"{task.workload}: {outcome.name}: {outcome.failed}")
    return answer, outcomes
