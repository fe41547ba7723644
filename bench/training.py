"""Question `training`: logistic regression trained on encrypted rows, over a real endpoint.

    heart     accuracy against scikit-learn's by five folds with the one preset: heart disease
              (--heart DIR), breast cancer, made-up patients
    time      780 rows of 9 features, five iterations, degrees 3 and 5
    ridge     ridge regression against scikit-learn's
    scaling   time against rows, features and iterations
    long      32 iterations, with bootstraps
    large     mini-batches of 1024 rows of 196 features: compiled, predicted, an iteration run
    peers     a pass over a row beside TenSEAL's tutorial and Concrete ML
    kills     a server that is killed and started again (--kills N)

`--only` chooses among them. Every part's records are in the file as soon as it ends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from bench import training_kills, training_large, training_parts, training_peers
from bench.plots import draw_training as draw
from bench.question import Answer, Options
from bench.record import look_around
from bench.training_course import NAME, Course, Part

__all__ = ["NAME", "PARTS", "SUMMARY", "draw", "run"]

SUMMARY = "training on encrypted rows: accuracy, time, errors (--heart DIR, --only, --kills N)"
PARTS: Mapping[str, Part] = {
    "heart": training_parts.accuracy,
    "time": training_parts.times,
    "ridge": training_parts.ridge,
    "kills": training_kills.run,
    "peers": training_peers.run,
    "scaling": training_parts.scaling,
    "large": training_large.run,
    "long": training_parts.long_run,
}


def run(options: Options, console: Console) -> Answer:
    """Measure the wanted parts, one after the other; a part that breaks ends no other one."""
    wanted = options.parts(PARTS)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tacit-bench-") as name:
        course = Course(options, console, look_around(), Path(name))
        try:
            for number, part in enumerate(wanted):
                minutes = (time.perf_counter() - start) / 60.0
                course.say(f"-- {part} ({number + 1} of {len(wanted)}, after {minutes:.1f} min)")
                _run(course, part)
                course.save()
        finally:
            course.close()
    return course.answer


def _run(course: Course, part: str) -> None:
    try:
        PARTS[part](course)
    except Exception as error:
        course.console.print_exception()
        course.answer.failures.append(f"{part}: {type(error).__name__}: {error}")
