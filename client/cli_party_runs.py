"""What the commands of `tacit party` do, from invitation to decryption."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tacit.client.cli_common import (
    bytes_text,
    read_passphrase,
    read_rows,
    read_token,
    say,
    write_rows,
)
from tacit.errors import PartyError, UserError

if TYPE_CHECKING:
    from tacit.client.party import Party
    from tacit.party_terms import Column, SessionTerms
    from tacit.signature import Signature

_LARGEST_INVITATION = 1 << 16


def run_create(options: argparse.Namespace) -> int:
    """Create a session; writes invitations next to the folder."""
    from tacit.client.party import Party, terms_for

    token, columns = read_token(options.token_file), read_columns(options.columns)
    if (options.model is None) == (options.train is None):
        raise UserError("name a model, or say --train ITERATIONS")
    signature = _signature_for(options, token, len(columns))
    terms = terms_for(
        signature,
        options.name or signature.model,
        options.parties,
        columns,
        options.most_rows,
        smudging_bits=options.smudging_bits,
        least_smudging_bits=min(options.least_smudging_bits, options.smudging_bits),
        precision_bits=options.precision_bits,
        step_seconds=round(3600 * options.step_hours),
    )
    party, tokens = Party.create(
        options.url,
        terms,
        options.folder,
        token=token,
        passphrase=read_passphrase(options.passphrase_file),
        allow_insecure=options.allow_insecure,
    )
    with party:
        for name, invitation in tokens.items():
            _write_invitation(options.folder, options.url, terms, name, invitation)
    say(f"session {terms.session}")
    return 0


def run_join(options: argparse.Namespace) -> int:
    """Join a session."""
    from tacit.client.party import Party

    fields = _read_invitation(options.invitation)
    names = None
    if options.columns is not None:
        names = [column.name for column in read_columns(options.columns)]
    party = Party.join(
        fields["url"],
        fields["session"],
        fields["party"],
        fields["token"],
        options.folder,
        columns=names,
        token=read_token(options.token_file),
        passphrase=read_passphrase(options.passphrase_file),
        allow_insecure=options.allow_insecure,
    )
    with party:
        say(f"{party.name} takes part in session {party.terms.session}")
    return 0


def run_keygen(options: argparse.Namespace) -> int:
    """Make the joint key."""
    from tacit.client.service import Service

    with _open(options) as party:
        model = party.keygen(seconds=options.wait)
        say(f"joint key {model.key_id}")
        say(f"fingerprint {party.status().fingerprint}: compare it with the other parties'")
        if options.upload:
            url, token = party.session.relay.url, read_token(options.token_file)
            with Service(url, token=token, timeout=options.timeout) as service:
                say(f"{bytes_text(model.upload_keys(service))} of evaluation keys uploaded")
    return 0


def run_moments(options: argparse.Namespace) -> int:
    """Compute pooled moments."""
    rows = np.asarray(read_rows(options.rows), dtype=np.float64)
    with _open(options) as party:
        found = party.moments(rows, name=options.name, seconds=options.wait)
    text = json.dumps(found.to_json(), indent=1)
    if options.out is None:
        say(text)
    else:
        options.out.write_text(text + "\n", encoding="utf-8")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train on all parties' rows."""
    from tacit.client.party_training import JointTraining
    from tacit.client.training.service import TrainingService
    from tacit.training_plan import TrainingPlan

    rows = np.asarray(read_rows(options.rows), dtype=np.float64)
    labels = np.asarray(read_rows(options.labels))
    if labels.shape != rows.shape[:1] or not np.isin(labels, (0, 1)).all():
        raise UserError(f"a label of 0 or 1 for each of {len(rows)} rows is needed")
    token = read_token(options.token_file)
    with _open(options) as party:
        url, model_name = party.session.relay.url, party.terms.model
        with TrainingService(url, token=token, timeout=options.timeout) as service:
            plan = TrainingPlan.of(service.signature(model_name))
            training = JointTraining(party, plan, options.name, options.constant)
            found = training.fit(service, rows, labels == 1, seconds=options.wait)
        names = [column.name for column in party.terms.columns]
    learnt = {
        "columns": names,
        "coefficients": found.coefficients.tolist(),
        "intercept": found.intercept,
        "prepared": found.prepared.tolist(),
        "preprocessing": found.preprocessing.to_json(),
    }
    options.out.write_text(json.dumps(learnt, indent=1) + "\n", encoding="utf-8")
    say(f"weights of {len(names)} columns in {options.out}")
    return 0


def run_encrypt(options: argparse.Namespace) -> int:
    """Encrypt slot vectors."""
    from tacit.wire import encode_ciphertext

    slots = np.asarray(read_rows(options.slots), dtype=np.float64)
    with _open(options) as party:
        public = party.model().keys.public_key()
        params = party.terms.params
        if slots.ndim != 2 or slots.shape[1] != params.slots:
            raise UserError(f"shape (ciphertexts, {params.slots}) expected, got {slots.shape}")
        if not 0 <= options.level <= params.depth:
            raise UserError(f"levels are 0 to {params.depth}, got {options.level}")
        frames = [
            encode_ciphertext(public.encrypt(row, options.level), params.moduli) for row in slots
        ]
    options.out.write_bytes(b"".join(frames))
    say(f"{len(frames)} ciphertexts, {bytes_text(sum(map(len, frames)))}")
    return 0


def run_decrypt(options: argparse.Namespace) -> int:
    """Take part in a decryption."""
    from tacit.client.party_decrypt import Request

    with _open(options) as party:
        model = party.model()
        if options.frames is not None:
            if options.level is None or options.noise_bits is None:
                raise UserError("with --frames say --level and --noise-bits too")
            request = Request(
                options.level,
                options.degree,
                options.noise_bits,
                options.repeats,
                options.purpose,
            )
            model.request(options.name, split_frames(options.frames.read_bytes()), request)
        slots = model.decrypt(options.name, purpose=options.purpose, seconds=options.wait)
    write_rows(options.out, slots)
    say(f"{len(slots)} vectors of {slots.shape[1]} slots in {options.out}")
    return 0


def run_status(options: argparse.Namespace) -> int:
    """Show where a session stands."""
    with _open(options) as party:
        status = party.status()
        terms = party.terms
    say(f"session      {status.session}")
    say(f"this party   {status.party} of {', '.join(terms.parties)}")
    say(f"fingerprint  {status.fingerprint or '(not everybody has come yet)'}")
    if status.ended:
        say("ended        the test of the joint key failed: begin a new session")
    elif status.step:
        late = ", overdue" if status.overdue else ""
        say(f"waiting      in step {status.step!r} for {', '.join(status.missing)}{late}")
    say(f"joint key    {status.key_id or '(not made yet)'}")
    for step, missing in status.activities.items():
        say(f"  {step}: " + (f"waits for {', '.join(missing)}" if missing else "complete"))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Check the transcript."""
    with _open(options) as party:
        count = party.verify()
        transcript = party.session.transcript
        say(f"{count} entries are signed, chained and as committed to")
        if transcript.complete("hello"):
            say(f"fingerprint {transcript.fingerprint}: compare it with the other parties'")
    return 0


def read_columns(path: Path) -> list[Column]:
    """Read NAME,LOW,HIGH lines.

    Raises:
        UserError: the file cannot be read, or a line is something else.
    """
    from tacit.party_terms import Column

    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
        return [Column(name.strip(), float(low), float(high)) for name, low, high in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}") from error
    except ValueError as error:
        raise UserError(f"{path}: NAME,LOW,HIGH expected in each line") from error


def split_frames(content: bytes) -> list[bytes]:
    """Split frames that stand one after the other.

    Raises:
        WireError: what is there is no frame, or ends too early.
    """
    from tacit.errors import TruncatedError
    from tacit.wire import frame_length

    frames: list[bytes] = []
    while content:
        length = frame_length(content[:64])
        if length > len(content):
            raise TruncatedError("the last frame ends too early")
        frames.append(content[:length])
        content = content[length:]
    return frames


def _signature_for(options: argparse.Namespace, token: str | None, features: int) -> Signature:
    """Fetch the signature of the model, or of the training, that the key is for."""
    from tacit.client.training.service import TrainingService
    from tacit.training import Algorithm, TrainingTask

    with TrainingService(options.url, token=token, timeout=options.timeout) as service:
        if options.model is not None:
            return service.signature(options.model)
        task = TrainingTask(
            Algorithm.LOGISTIC,
            rows=options.most_rows,
            features=features,
            iterations=options.train,
            parties=len(options.parties),
        )
        return service.signature(service.planned(task).plan)


def _open(options: argparse.Namespace) -> Party:
    from tacit.client.party import Party

    return Party.open(
        options.folder,
        token=read_token(options.token_file),
        passphrase=read_passphrase(options.passphrase_file),
        allow_insecure=options.allow_insecure,
    )


def _write_invitation(folder: Path, url: str, terms: SessionTerms, name: str, token: str) -> None:
    from tacit.client.key_files import write_private

    path = folder.parent / f"{name}.invitation"
    fields = {"url": url, "session": terms.session, "party": name, "token": token}
    try:
        write_private(path, json.dumps(fields, indent=1).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    say(f"{path}: hand it to {name!r} only")


def _read_invitation(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_LARGEST_INVITATION))
        wanted: Sequence[str] = ("url", "session", "party", "token")
        return {key: _text(fields[key]) for key in wanted}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PartyError(f"{path} is not an invitation") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text expected")
    return value
