"""A progress bar for trainings that take more than two seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tacit.client.cli_common import steps_on_stderr
from tacit.client.training.requests import OnStatus
from tacit.training import JobStatus


@contextmanager
def progress_bar(shown: bool) -> Iterator[OnStatus | None]:
    """Give a callback for `TrainingJob.result`; its bar appears after two seconds."""
    with steps_on_stderr(not shown) as step:
        if step is None:
            yield None
            return

        def heard(status: JobStatus) -> None:
            step(words_of(status), status.done / max(status.of, 1))

        yield heard


def words_of(status: JobStatus) -> str:
    """Say in a line where a training stands and how long it will take."""
    line = f"training, {status.state.value.replace('_', ' ')}: {status.done} of {status.of}"
    if status.seconds_left and not status.state.ended:
        line += f", about {status.seconds_left:.0f} s left"
    return line
