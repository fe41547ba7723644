"""`python -m bench QUESTION`: measure, print a table, append JSON lines, draw a plot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from bench import (
    bootstrap,
    deep,
    engine,
    heart,
    keys,
    lenet,
    logreg,
    memory,
    mlp,
    operations,
    parties,
    predicted,
    training,
)
from bench.peers.install import PEERS
from bench.question import DEFAULT_PEERS, Answer, Options
from bench.record import RESULTS, Record, newest, read
from tacit.model_compiler.op_times import Backend

PRINTED_WIDTH = 180  # columns when the output goes to a file

EXAMPLES = """\
examples:
  python -m bench logreg                        all peers; installs those that are absent
  python -m bench mlp --peers orion --rounds 20
  python -m bench logreg --quick --peers none --json logreg.jsonl
  python -m bench heart --heart ~/heart-disease
  python -m bench deep --models ~/models --data ~/images
  python -m bench operations --backend native --write-cost-table
  python -m bench predicted --backend native
  python -m bench training --heart ~/heart-disease --kills 50
  python -m bench training --only time,peers
  python -m bench parties --heart ~/heart-disease
  python -m bench.peers.install tenseal orion   install peers beforehand
"""


@dataclass(frozen=True, slots=True)
class Question:
    """One benchmark question."""

    name: str
    summary: str
    run: Callable[[Options, Console], Answer]
    draw: Callable[[Sequence[Record], Path], None]


QUESTIONS = {
    question.name: question
    for question in (
        Question(logreg.NAME, logreg.SUMMARY, logreg.run, logreg.draw),
        Question(mlp.NAME, mlp.SUMMARY, mlp.run, mlp.draw),
        Question(lenet.NAME, lenet.SUMMARY, lenet.run, lenet.draw),
        Question(deep.NAME, deep.SUMMARY, deep.run, deep.draw),
        Question(heart.NAME, heart.SUMMARY, heart.run, heart.draw),
        Question(predicted.NAME, predicted.SUMMARY, predicted.run, predicted.draw),
        Question(engine.NAME, engine.SUMMARY, engine.run, engine.draw),
        Question(keys.NAME, keys.SUMMARY, keys.run, keys.draw),
        Question(memory.NAME, memory.SUMMARY, memory.run, memory.draw),
        Question(bootstrap.NAME, bootstrap.SUMMARY, bootstrap.run, bootstrap.draw),
        Question(training.NAME, training.SUMMARY, training.run, training.draw),
        Question(parties.NAME, parties.SUMMARY, parties.run, parties.draw),
        Question(operations.NAME, operations.SUMMARY, operations.run, operations.draw),
    )
}


def main(arguments: Sequence[str] | None = None, console: Console | None = None) -> int:
    """Run one question.

    Returns:
        0, or 1 if a subject failed. Skipped peers are no failure.
    """
    console = console or Console(width=None if sys.stdout.isatty() else PRINTED_WIDTH)
    chosen = _parser().parse_args(arguments)
    if chosen.question is None:
        _list_questions(console)
        return 0
    question = QUESTIONS[chosen.question]
    path: Path = chosen.json or RESULTS / f"{question.name}.jsonl"
    options = Options(
        chosen.quick,
        chosen.peers,
        chosen.rounds,
        chosen.heart,
        chosen.write_cost_table,
        chosen.backend,
        chosen.sizes,
        chosen.threads,
        chosen.instructions,
        chosen.kills,
        chosen.models,
        chosen.data,
        chosen.resume,
        chosen.only,
        path,
    )
    answer = question.run(options, console)
    answer.save(path)
    if answer.records:
        drawn = newest(read(path)) if options.only else answer.records
        question.draw(drawn, path.with_suffix(".png"))
        console.print(f"{len(answer.records)} results appended to {path}, plot beside it")
    for failure in answer.failures:
        console.print(f"FAILED {failure}", style="red", markup=False)
    return 1 if answer.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Tacit and its peers side by side.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "question",
        nargs="?",
        choices=sorted(QUESTIONS),
        metavar="QUESTION",
        help=f"one of {', '.join(QUESTIONS)}; without one, they are listed",
    )
    parser.add_argument("--quick", action="store_true", help="few rounds, no slow peer")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="append the results here (default: bench/results/QUESTION.jsonl)",
    )
    parser.add_argument(
        "--peers",
        type=_peers,
        default=DEFAULT_PEERS,
        metavar="LIST",
        help=f"peers, comma-separated, or none (default: {','.join(DEFAULT_PEERS)})",
    )
    parser.add_argument("--rounds", type=_rounds, metavar="N", help="measured rounds per subject")
    parser.add_argument(
        "--heart",
        "--csv",
        type=Path,
        metavar="DIR",
        help="folder with processed.{cleveland,hungarian,switzerland,va}.data",
    )
    parser.add_argument(
        "--write-cost-table",
        action="store_true",
        help="operations only: replace the compiler's table of operation times",
    )
    parser.add_argument(
        "--backend",
        choices=[backend.value for backend in Backend],
        default=Backend.NATIVE.value,
        help="operations and predicted only: what to measure (default native)",
    )
    parser.add_argument(
        "--sizes",
        type=_numbers,
        default=(),
        metavar="LIST",
        help="engine and bootstrap: base-2 logarithms of N, such as 13,14 (default: 13,14,15,16; "
        "for bootstrap 15,16)",
    )
    parser.add_argument(
        "--threads",
        type=_numbers,
        default=(),
        metavar="LIST",
        help="engine only: numbers of threads (default: 1,2)",
    )
    parser.add_argument(
        "--instructions",
        choices=("scalar", "avx2", "avx512"),
        help="engine only: instruction set of the native kernels (default: the best)",
    )
    parser.add_argument(
        "--kills",
        type=_rounds,
        default=0,
        metavar="N",
        help="training only: kill the server at N random moments and start it again",
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="deep only: folder with the ONNX files"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="deep only: folder with cifar10/*.npz"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="bootstrap only: add each result to this file as it comes, and take over those that "
        "it has from the same commit",
    )
    parser.add_argument(
        "--only",
        type=_parts,
        default=(),
        metavar="LIST",
        help=f"training only: parts, comma-separated, of {', '.join(training.PARTS)}",
    )
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _parts(text: str) -> tuple[str, ...]:
    return _known("part", _words(text), training.PARTS)


def _known(what: str, names: tuple[str, ...], known: Iterable[str]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(
            f"unknown {what} {', '.join(unknown)}: expected some of {', '.join(known)}"
        )
    return names


def _numbers(text: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in text.split(","))
    if not all(number > 0 for number in numbers):
        raise argparse.ArgumentTypeError("positive numbers, separated by commas, expected")
    return numbers


def _peers(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    return _known("peer", _words(text), PEERS)


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError("at least one round is needed")
    return rounds


def _list_questions(console: Console) -> None:
    console.print("Questions (python -m bench QUESTION, --help for options):")
    for question in QUESTIONS.values():
        console.print(f"  {question.name:10} {question.summary}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())
