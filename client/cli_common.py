"""What the commands share: arrays in files, progress on stderr, words for numbers."""

from __future__ import annotations

import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tacit.client.frames import Progress, no_progress
from tacit.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

Array = NDArray[Any]

_PATIENCE_SECONDS = 2.0
_STAGES = {
    "keys": "making evaluation keys",
    "upload": "uploading evaluation keys",
    "predict": "predicting on encrypted rows",
    "rows": "sending encrypted rows",
}


def say(text: str = "") -> None:
    """Print a result line to stdout."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def remark(text: str) -> None:
    """Print a remark to stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def read_rows(path: Path) -> Array:
    """Read one array from an .npy file.

    Raises:
        UserError: missing, or not an .npy file of numbers.
    """
    loaded = _load(path)
    if isinstance(loaded, dict):
        if len(loaded) != 1:
            raise UserError(f"{path} holds {sorted(loaded)}: one array is expected, as .npy")
        return next(iter(loaded.values()))
    return loaded


def read_inputs(path: Path) -> Array | dict[str, Array]:
    """Read an array from .npy, or arrays by name from .npz.

    Raises:
        UserError: missing, or neither.
    """
    return _load(path)


def write_rows(path: Path, rows: Array) -> None:
    """Write an .npy file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with path.open("wb") as file:
            np.save(file, rows, allow_pickle=rows.dtype.kind == "O")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_passphrase(path: Path | None) -> str | None:
    """Read a passphrase from the first line of a file; None without one.

    Raises:
        UserError: the file cannot be read, or its first line is empty.
    """
    return _first_line(path, "passphrase")


def read_token(path: Path | None) -> str | None:
    """Read an access token from the first line of a file; None without one.

    Raises:
        UserError: the file cannot be read, or its first line is empty.
    """
    return _first_line(path, "token")


def _first_line(path: Path | None, what: str) -> str | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the {what} file {path}") from error
    if not lines or not lines[0].strip():
        raise UserError(f"the {what} file {path} begins with an empty line")
    return lines[0]


@contextmanager
def progress_on_stderr(quiet: bool) -> Iterator[Progress]:
    """Give a progress callback whose bars appear once a stage has taken two seconds."""
    if quiet:
        yield no_progress
        return
    with _bars(disable=not sys.stderr.isatty()) as bars:
        yield _Stages(bars).heard


@contextmanager
def steps_on_stderr(quiet: bool) -> Iterator[Callable[[str, float], None] | None]:
    """Give a callback that takes a step's name and the fraction done."""
    if quiet:
        yield None
        return
    with _bars(disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task("starting", total=1.0, visible=False)
        start = time.monotonic()

        def heard(name: str, fraction: float) -> None:
            late = time.monotonic() - start > _PATIENCE_SECONDS
            bars.update(task, description=name, completed=fraction, visible=late)

        yield heard


class _Stages:
    """Bars for the stages a client goes through."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, tuple[TaskID, float]] = {}

    def heard(self, stage: str, done: int, total: int) -> None:
        """Show a stage's progress; see `tacit.client.frames.Progress`."""
        now = time.monotonic()
        if stage not in self._tasks or done == 0:
            text = _STAGES.get(stage, stage)
            task = self._bars.add_task(text, total=total, visible=False)
            self._tasks[stage] = (task, now)
        task, start = self._tasks[stage]
        late = now - start > _PATIENCE_SECONDS
        self._bars.update(task, completed=done, total=total, visible=late)


def _bars(disable: bool) -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=disable,
    )


def bytes_text(count: float) -> str:
    """Return a byte count in the largest fitting unit, powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def milliseconds_text(ms: float) -> str:
    """Return a duration in ms below one second and in s above."""
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


def _load(path: Path) -> Array | dict[str, Array]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot read {path}: {reason}") from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{path} is not an .npy or .npz file of numbers: {error}") from error
