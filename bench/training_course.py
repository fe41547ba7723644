"""What the parts of question `training` share: a server, records, what is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.question import Answer, Options
from bench.record import Surroundings
from bench.report import format_bytes, format_seconds
from bench.task import Array
from bench.training_fits import Cold, Fit, fit, forget, warm_up
from bench.training_server import TrainingServer
from bench.training_sets import Labels
from tacit.client.training.connection import Connection
from tacit.client.training.linear_models import Ridge
from tacit.client.training.logistic_regression import LogisticRegression

NAME = "training"
THREADS = 2
LARGEST_WEIGHT_ERROR = 1e-3


@dataclass(slots=True)
class Course:
    """What all parts share; the server starts when a part first asks for it.

    Attributes:
        options: of the command line.
        console: where progress goes.
        around: machine and commit.
        folder: for the server, keys and what workers write.
        answer: all records and failures.
    """

    options: Options
    console: Console
    around: Surroundings
    folder: Path
    answer: Answer = field(default_factory=Answer)
    _server: TrainingServer | None = None

    @property
    def server(self) -> TrainingServer:
        """The server."""
        if self._server is None:
            self._server = TrainingServer(self.folder / "server", threads=THREADS)
        return self._server

    @property
    def connection(self) -> Connection:
        """A way to the server, with a key directory."""
        return Connection(self.server.url, key_dir=self.folder / "keys", timeout=900.0)

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.close()

    def model(self, **params: Any) -> LogisticRegression:
        """Return an estimator with the preset but for `params`."""
        return LogisticRegression(self.connection, missing="mean", constant="ignore", **params)

    def ready(self, model: LogisticRegression | Ridge, rows: Array, labels: Labels) -> Cold:
        """Have a training compiled and its keys made and uploaded; returns what that took."""
        with self.console.status("compiling, making keys, uploading them"):
            return warm_up(model, rows, labels)

    def trained(self, model: LogisticRegression, rows: Array, labels: Labels) -> Fit:
        """Train once and delete the job."""
        self.ready(model, rows, labels)
        with self.console.status(f"training on {len(rows)} rows"):
            found = fit(model, rows, labels, self.server)
        forget(self.connection, found.model.job_id_)
        return found

    def save(self) -> None:
        """Write what is new to the file of results, so that nothing is lost if this is killed."""
        self.answer.save(self.options.results)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def note(
        self,
        workload: str,
        metric: str,
        unit: str,
        samples: Sequence[float],
        parameters: dict[str, object],
    ) -> None:
        """Keep a record of the samples' median."""
        value = statistics.median(samples)
        self.answer.records.append(
            self.around.record(
                NAME,
                workload,
                "tacit",
                metric,
                value,
                unit,
                parameters,
                threads=THREADS,
                samples=samples,
            )
        )

    def note_costs(self, workload: str, fits: Sequence[Fit]) -> None:
        """Keep records of times, bytes and errors."""
        first, parameters = fits[0], fits[0].parameters
        errors = [f.weight_error for f in fits]
        for metric, unit, samples in (
            ("fit_seconds", "s", [f.fit_seconds for f in fits]),
            ("server_seconds", "s", [f.server_seconds for f in fits]),
            ("server_cpu_seconds", "s", [f.server_cpu_seconds for f in fits]),
            ("weight_error_vs_clear", "1", errors),
            ("key_bytes", "bytes", [float(first.key_bytes)]),
            ("upload_bytes", "bytes", [float(first.upload_bytes)]),
        ):
            self.note(workload, metric, unit, samples, parameters)
        self.say(
            f"{workload}: fit {format_seconds(statistics.median(f.fit_seconds for f in fits))}, "
            f"server {format_seconds(statistics.median(f.server_seconds for f in fits))}, "
            f"weight error {max(errors):.1e}, "
            f"keys {format_bytes(first.key_bytes)}, rows {format_bytes(first.upload_bytes)}"
        )
        self.limit(workload, "weight_error_vs_clear", max(errors), LARGEST_WEIGHT_ERROR)

    def limit(self, workload: str, metric: str, value: float, largest: float) -> None:
        """Count a figure above its limit as a failure."""
        if value > largest:
            self.answer.failures.append(f"{workload}: {metric} {value:.3g}, limit {largest:g}")


Part = Callable[[Course], None]
