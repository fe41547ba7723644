"""`tacit train`: have a server train on encrypted rows, watch it, fetch the model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tacit.client.cli_common import read_passphrase, read_token, remark, say
from tacit.client.cli_parsers import (
    add_command,
    add_key_options,
    add_server_options,
    positive_integer,
)
from tacit.client.training.curve import LearningCurve, plotting
from tacit.client.training.progress import progress_bar, words_of
from tacit.errors import UserError

if TYPE_CHECKING:
    from tacit.client.cli_parsers import Commands
    from tacit.client.training.connection import Connection
    from tacit.client.training.job import TrainingJob

MODELS = ("logistic", "ridge", "linear")
_CLASSES = {"logistic": "LogisticRegression", "ridge": "Ridge", "linear": "LinearRegression"}

_EXAMPLES = """\
  tacit train fit http://localhost:8000 patients.csv --target disease
  tacit train fit http://localhost:8000 patients.csv --target disease --missing mean \\
      --iterations 8 --validation 0.2 --early-stopping 3 --out disease.onnx
  tacit train fit http://localhost:8000 flats.csv --target rent --model ridge --alpha 2
  tacit train fit http://localhost:8000 patients.csv --target disease --no-wait
  tacit train status http://localhost:8000 JOB
  tacit train cancel http://localhost:8000 JOB
  tacit train resume http://localhost:8000 JOB
  tacit train download http://localhost:8000 JOB --out disease.onnx --curve curve.png
  tacit train predict http://localhost:8000 JOB new_patients.csv --out risk.csv

rows are encrypted here; the server sees neither them nor the weights nor predictions
"""


def add_train(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Add `tacit train` and what can be done with a training."""
    parser = add_command(
        commands,
        common,
        "train",
        lambda options: _nothing(parser),
        "train on encrypted rows at a server",
        _EXAMPLES,
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    _add_fit(actions, common)
    for name, run, text in (
        ("status", run_status, "say how far trainings are"),
        ("cancel", run_cancel, "stop a training; what was computed stays"),
        ("resume", run_resume, "have a cancelled or failed training go on"),
        ("download", run_download, "fetch the weights and decrypt them here"),
        ("predict", run_predict, "predict on encrypted rows with the encrypted weights"),
    ):
        action = add_command(actions, common, name, run, text, _examples_of(name))
        action.add_argument("url", metavar="URL", help="the server, e.g. http://localhost:8000")
        optional = name == "status"
        action.add_argument(
            "job", metavar="JOB", nargs="?" if optional else None, help="what `fit` printed"
        )
        if name == "predict":
            action.add_argument("csv", type=Path, metavar="CSV", help="rows, without the target")
        if name in ("download", "predict"):
            action.add_argument(
                "--out",
                type=Path,
                required=True,
                metavar="FILE",
                help="an .onnx or .json file" if name == "download" else "a .csv file",
            )
        if name == "download":
            _add_curve(action)
        add_server_options(action)
        add_key_options(action)


def run_fit(options: argparse.Namespace) -> int:
    """Encrypt a table, have it trained on, fetch the model if a file is named."""
    from tacit.client.training.csv_rows import read_table

    _check_curve(options)
    table = read_table(options.csv)
    rows, names = table.without(options.target)
    target = table.column(options.target, numbers=options.model != "logistic")
    estimator = _estimator(options)
    job = estimator.fit(_Named(rows, names), target, wait=False)
    say(f"job {job.id}: {len(rows)} rows of {len(names)} columns were sent encrypted")
    if options.no_wait:
        say(f"tacit train status {options.url} {job.id} says how far it is")
        return 0
    return _finish(job, options)


def run_status(options: argparse.Namespace) -> int:
    """Print one line for a job, or for all."""
    from tacit.client.training.http_trainer import service_of

    service = service_of(_connection(options))
    with service:
        jobs = [service.status(options.job)] if options.job else service.jobs()
    for status in jobs:
        say(f"{status.job}  {words_of(status)}" + (f"  ({status.reason})" if status.reason else ""))
    if not jobs:
        say("no trainings")
    return 0


def run_cancel(options: argparse.Namespace) -> int:
    """Stop a job."""
    from tacit.client.training.http_trainer import service_of

    with service_of(_connection(options)) as service:
        say(words_of(service.cancel(options.job)))
    return 0


def run_resume(options: argparse.Namespace) -> int:
    """Have a job go on."""
    from tacit.client.training.http_trainer import service_of

    with service_of(_connection(options)) as service:
        say(words_of(service.resume(options.job)))
    return 0


def run_download(options: argparse.Namespace) -> int:
    """Wait for a job, decrypt its weights, write them."""
    if options.curve is not None:
        plotting()
    return _finish(_attached(options), options)


def run_predict(options: argparse.Namespace) -> int:
    """Predict on the rows of a CSV file with the encrypted weights."""
    from tacit.client.training.csv_rows import read_table

    table = read_table(options.csv)
    with progress_bar(not options.quiet) as heard:
        fitted = _attached(options).result(heard)
    names = vars(fitted).get("feature_names_in_")
    known = None if names is None else tuple(names)
    rows = table.rows(known, fitted.n_features_in_)
    if hasattr(fitted, "predict_proba"):
        header = [f"probability of {label}" for label in fitted.classes_]
        answers = fitted.predict_proba(_Named(rows, known) if known else rows)
    else:
        header, answers = ["prediction"], fitted.predict(rows)[:, None]
    lines = [",".join(header)] + [",".join(f"{v:.6g}" for v in row) for row in answers]
    _write(options.out, ("\n".join(lines) + "\n").encode())
    say(f"{len(rows)} row(s) predicted: {options.out}")
    return 0


class _Named:
    """Rows with names of columns, as estimators read them from a data frame."""

    def __init__(self, rows: Any, columns: tuple[str, ...]) -> None:
        self._rows = rows
        self.columns = columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self._rows, dtype=dtype)


def _add_fit(actions: Commands, common: argparse.ArgumentParser) -> None:
    parser = add_command(
        actions,
        common,
        "fit",
        run_fit,
        "encrypt the rows of a CSV file and have them trained on",
        _examples_of("fit"),
    )
    parser.add_argument("url", metavar="URL", help="the server, e.g. http://localhost:8000")
    parser.add_argument("csv", type=Path, metavar="CSV", help="numbers, with a header or without")
    parser.add_argument(
        "--target", required=True, metavar="COLUMN", help="what is predicted: a name or a number"
    )
    parser.add_argument("--model", choices=MODELS, default=MODELS[0], help="default logistic")
    parser.add_argument(
        "--iterations", type=positive_integer, metavar="N", help="of the gradient method"
    )
    parser.add_argument("--alpha", type=float, metavar="A", help="ridge only: penalty (default 1)")
    parser.add_argument(
        "--whiten",
        type=float,
        metavar="POWER",
        help="0 standardises columns, 1 makes them uncorrelated, which helps where they nearly "
        "repeat each other",
    )
    parser.add_argument(
        "--missing",
        choices=("refuse", "mean"),
        default="refuse",
        help="fill missing values (empty, ?, NA) in with the column's mean, here",
    )
    parser.add_argument(
        "--validation", type=float, metavar="SHARE", help="share of the rows held back, e.g. 0.2"
    )
    parser.add_argument(
        "--early-stopping",
        type=positive_integer,
        metavar="N",
        help="stop after so many validations without improvement",
    )
    _add_curve(parser)
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="decrypt the weights into an .onnx or .json file"
    )
    parser.add_argument("--no-wait", action="store_true", help="leave when the rows are sent")
    add_server_options(parser)
    add_key_options(parser)


def _add_curve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--curve",
        type=Path,
        metavar="PNG",
        help="draw the learning curve here; needs a training with --validation, and matplotlib",
    )


def _check_curve(options: argparse.Namespace) -> None:
    """Refuse, before anything is sent, a curve that could not be drawn afterwards."""
    if options.curve is None:
        return
    if not options.validation:
        raise UserError("--curve shows validation rows: hold some back, e.g. --validation 0.2")
    if options.no_wait:
        raise UserError("--curve is drawn at the end: `tacit train download JOB --curve` does it")
    plotting()


def _estimator(options: argparse.Namespace) -> Any:
    import tacit

    chosen = {
        "iterations": options.iterations,
        "alpha": options.alpha,
        "whiten": options.whiten,
        "validation": options.validation,
        "early_stopping": options.early_stopping,
    }
    params = {name: value for name, value in chosen.items() if value is not None}
    if options.model != "ridge" and "alpha" in params:
        raise UserError("--alpha goes with --model ridge")
    if options.model != "logistic" and {"iterations", "validation", "early_stopping"} & set(params):
        params["solver"] = "gradient"
    cls = getattr(tacit, _CLASSES[options.model])
    return cls(_connection(options), missing=options.missing, verbose=not options.quiet, **params)


def _attached(options: argparse.Namespace) -> TrainingJob[Any]:
    import tacit
    from tacit.client.training.records import read_record

    connection = _connection(options)
    record = read_record(connection, options.job)
    cls = getattr(tacit, record.model)
    job: TrainingJob[Any] = cls.attach(connection, options.job)
    return job


def _finish(job: TrainingJob[Any], options: argparse.Namespace) -> int:
    with progress_bar(not options.quiet) as heard:
        fitted = job.result(heard)
    for point in job.curve.points:
        say(f"after {point.iteration} iterations: validation loss {point.loss:.4f}")
    if options.curve is not None:
        _draw(job.curve, options.curve, job.stopped_early)
        say(f"learning curve: {options.curve}")
    if job.stopped_early is not None:
        say(f"stopped early: the weights after {job.stopped_early} iterations are kept")
    say(f"trained, {fitted.n_iter_} iterations")
    if options.out is None:
        say(f"the weights stay encrypted at the server: tacit train predict {options.url} {job.id}")
        return 0
    fitted.download()
    if options.out.suffix == ".json":
        weights = {"coef": fitted.coef_.tolist(), "intercept": fitted.intercept_.tolist()}
        _write(options.out, json.dumps(weights).encode())
    else:
        fitted.to_onnx(options.out)
    say(f"decrypted weights: {options.out}")
    remark("whoever may hold ciphertexts must not get decrypted weights: see SECURITY.md")
    return 0


def _draw(curve: LearningCurve, path: Path, kept: int | None) -> None:
    figure = curve.plot(kept=kept).figure
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot draw the learning curve at {path}: {error}") from error


def _connection(options: argparse.Namespace) -> Connection:
    from tacit.client.training.connection import Connection

    return Connection(
        options.url,
        token=read_token(options.token_file),
        key_dir=options.key_dir,
        passphrase=read_passphrase(options.passphrase_file),
        timeout=options.timeout,
        allow_insecure=options.allow_insecure,
    )


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _examples_of(action: str) -> str:
    lines = _EXAMPLES.replace("\\\n      ", "").splitlines(keepends=True)
    return "".join(line for line in lines if f" {action} " in line)


def _nothing(parser: argparse.ArgumentParser) -> int:
    parser.print_help()
    return 2
