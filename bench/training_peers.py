"""Part `peers` of question `training`: a pass over encrypted rows by TenSEAL and Concrete ML.

TenSEAL runs an epoch of its tutorial on encrypted training, Concrete ML a mini-batch of its SGD;
both on fewer rows than ours, as their time is proportional to the number of rows. `row_seconds` is
training time for one pass over one row, which compares methods that take rows one at a time, eight
at a time or all at once; the records' `rows` says how many were trained on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.question import Answer
from bench.report import Figure, format_seconds, record_of
from bench.rounds import Outcome
from bench.subjects import FailedError, LateError, SkippedError, Subject, find_launch
from bench.task import Task
from bench.training_course import NAME, Course
from bench.training_fits import fit
from bench.training_sets import Patients, framingham_like

PEERS = ("tenseal", "concrete-ml")
ROWS, QUICK_ROWS = 160, 60
OWN_ITERATIONS = 5
# For making keys, and for an epoch or mini-batch.
LONGEST_SECONDS, QUICK_LONGEST_SECONDS = 240.0, 60.0
NOT_FINISHED = "not_finished_seconds"


def run(course: Course) -> None:
    """Have each wanted peer train on rows, and us, in one run."""
    wanted = [peer for peer in PEERS if peer in course.options.peers]
    if not wanted:
        course.say("peers skipped: none of them is wanted")
        return
    patients = framingham_like()
    own = _own_row_seconds(course, patients)
    task = _task(patients, QUICK_ROWS if course.options.quick else ROWS)
    for peer in wanted:
        _keep(course, _trained(course, task, peer), patients.name)
        course.save()
    _compare(course.answer, course, own)


def _own_row_seconds(course: Course, patients: Patients) -> float:
    """Return the seconds of a pass over a row: five iterations of degree 5 over all rows."""
    model = course.model(iterations=OWN_ITERATIONS, degree=5, where="client")
    course.ready(model, patients.rows, patients.labels)
    found = fit(model, patients.rows, patients.labels, course.server)
    seconds = found.server_seconds / OWN_ITERATIONS / len(patients.rows)
    course.note(patients.name, "row_seconds", "s", [seconds], found.parameters)
    course.note(patients.name, "rows", "1", [float(len(patients.rows))], found.parameters)
    return seconds


def _task(patients: Patients, count: int) -> Task:
    rows = (patients.rows - patients.rows.mean(axis=0)) / patients.rows.std(axis=0)
    arrays = {
        "rows": np.clip(rows, -4.0, 4.0)[:count],
        "labels": patients.labels[:count].astype(np.float64),
        "inputs": rows[None, :1],
    }
    return Task(NAME, patients.name, arrays, Path("none"), np.zeros((1, 1, 1)))


def _trained(course: Course, task: Task, peer: str) -> Outcome:
    """Run one peer; what it did not finish in time has a `NOT_FINISHED` record instead."""
    outcome, subject = Outcome(peer), None
    longest = QUICK_LONGEST_SECONDS if course.options.quick else LONGEST_SECONDS
    course.say(f"{task.workload}: {peer}, {longest:.0f} s at most for keys, and for training")
    doing = "compiling and making keys"
    try:
        launch = find_launch(peer, say=course.say)
        subject = Subject(replace(launch, timeout_seconds=longest), course.folder)
        with course.console.status(f"{peer}: {doing}"):
            outcome.ready = subject.setup(task, task.save_arrays(course.folder))
        doing = "training"
        with course.console.status(f"{peer}: {doing}"):
            outcome.rounds.append(subject.round(0))
        outcome.peak_rss_bytes = subject.close()
    except LateError:
        outcome.skipped = f"{doing}: not finished in {longest:.0f} s"
        course.answer.records.append(
            course.around.record(
                NAME,
                task.workload,
                peer,
                NOT_FINISHED,
                longest,
                "s",
                {"doing": doing, **(outcome.ready.parameters if outcome.ready else {})},
            )
        )
    except SkippedError as error:
        outcome.skipped = str(error)
    except FailedError as error:
        outcome.failed = str(error)
    finally:
        if subject is not None:
            subject.end()
    return outcome


def _keep(course: Course, outcome: Outcome, workload: str) -> None:
    if outcome.skipped or outcome.failed:
        word, reason = (
            ("skipped", outcome.skipped) if outcome.skipped else ("FAILED", outcome.failed)
        )
        course.say(f"{outcome.name} {word}: {reason}")
    if outcome.failed:
        course.answer.failures.append(f"{workload}: {outcome.name}: {outcome.failed}")
    if outcome.ready is None:
        return
    figures = [Figure("setup_seconds", "s", [outcome.ready.setup_seconds])]
    figures += [Figure(e.metric, e.unit, [e.value]) for e in outcome.ready.extra]
    if outcome.ready.key_bytes is not None:
        figures += [Figure("key_bytes", "bytes", [float(outcome.ready.key_bytes)])]
    for measured in outcome.rounds:
        figures += [Figure(e.metric, e.unit, [e.value]) for e in measured.extra]
        figures += [Figure("server_seconds", "s", [measured.server_seconds])]
        figures += [Figure("client_seconds", "s", [measured.client_seconds])]
    course.answer.records += [
        record_of(figure, outcome, course.around, question=NAME, workload=workload)
        for figure in figures
    ]


def _compare(answer: Answer, course: Course, own: float) -> None:
    """Print time per row and pass of everybody who has it."""
    course.say(f"a pass over one row: tacit {format_seconds(own)}")
    for record in answer.records:
        if record.metric == "row_seconds" and record.subject in PEERS:
            times = record.value / own
            seconds = format_seconds(record.value)
            course.say(f"a pass over one row: {record.subject} {seconds} ({times:.0f} x)")
