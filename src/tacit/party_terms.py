"""The terms of a session of several parties: public, fixed before it begins, named by their digest.

A session's id is the SHA-256 of its terms, so that whoever has agreed to an id has agreed to the
parties, the CKKS parameters, the keys, the columns with their public ranges, and the noise that
hides each share of a decryption.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tacit.errors import (
    ArtifactError,
    ParameterError,
    PartyError,
    SchemaMismatchError,
    UnsupportedKeysError,
)
from tacit.evaluation_keys import NeededKey, keys_at
from tacit.key_levels import KeyLevels
from tacit.params import CryptoParams, SecretDistribution

FORMAT = 1
MOST_PARTIES = 32
_MOST_COLUMNS = 4096
_MOST_ROTATIONS = 1 << 12
_LONGEST_TEXT = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
Kind = TypeVar("Kind")
_HEX = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Column:
    """A feature, and the range that the parties agreed on: public, not taken from the rows."""

    name: str
    low: float
    high: float

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise SchemaMismatchError(f"{self.name[:64]!r} is not a column's name")
        if not -math.inf < self.low < self.high < math.inf:
            raise SchemaMismatchError(f"column {self.name!r} needs a range with low < high")
        # One spelling in JSON: 0.0, never 0.
        object.__setattr__(self, "low", float(self.low))
        object.__setattr__(self, "high", float(self.high))


@dataclass(frozen=True, slots=True)
class SessionTerms:
    """What all parties agree on.

    Attributes:
        name: for people.
        parties: names in order; the first one leads: it assembles keys and asks for decryptions.
        params: the CKKS parameters.
        rotations: steps (left, in slots) that evaluation keys are made for.
        relinearization: whether the relinearisation key is made.
        columns: the features, in order.
        most_rows: rows of all parties together, at most.
        nonce: 32 hexadecimal digits that make sessions of equal terms different.
        conjugation: whether the key of complex conjugation is made.
        key_levels: the highest level that each key is for: they are trimmed to it; None for the
            top.
        smudging_bits: a share of a decryption carries noise 2^smudging_bits times the bound of the
            ciphertext's own noise, where the scale has room for it.
        least_smudging_bits: where it has not, as many as it has, but not fewer than these.
        precision_bits: bits that a decrypted value must keep; less is refused.
        step_seconds: after so long without a message a party counts as missing.
        model: name of the served model or training the keys are for; "" for none.
        key_config: of that model; "" for none.
    """

    name: str
    parties: tuple[str, ...]
    params: CryptoParams
    rotations: tuple[int, ...]
    relinearization: bool
    columns: tuple[Column, ...]
    most_rows: int
    nonce: str
    conjugation: bool = False
    key_levels: KeyLevels | None = None
    smudging_bits: int = 30
    least_smudging_bits: int = 30
    precision_bits: int = 10
    step_seconds: int = 86400
    model: str = ""
    key_config: str = ""

    def __post_init__(self) -> None:
        for text in (self.name, *self.parties):
            if not _NAME.fullmatch(text):
                raise PartyError(f"{text[:64]!r} is not a name: letters, digits and . _ - expected")
        if not 2 <= len(self.parties) <= MOST_PARTIES or len(set(self.parties)) < len(self.parties):
            raise PartyError(f"a session has 2 to {MOST_PARTIES} parties of different names")
        if len({c.name for c in self.columns}) < len(self.columns):
            raise SchemaMismatchError("two columns have the same name")
        if len(self.columns) > _MOST_COLUMNS or len(self.rotations) > _MOST_ROTATIONS:
            raise PartyError("too many columns or rotations")
        if max(len(self.model), len(self.key_config)) > _LONGEST_TEXT:
            raise PartyError(f"a model's name has at most {_LONGEST_TEXT} characters")
        self._check_levels()
        if not _HEX.fullmatch(self.nonce):
            raise PartyError("the nonce has 32 hexadecimal digits")
        if not 1 <= self.most_rows <= 1 << 32 or not 1 <= self.step_seconds <= 1 << 32:
            raise PartyError("rows and seconds are counted from 1 to 2^32")
        if not 0 <= self.least_smudging_bits <= self.smudging_bits <= 60:
            raise PartyError("smudging takes 0 to 60 bits, and at least the least ones")
        if not 1 <= self.precision_bits <= 50:
            raise PartyError("precision takes 1 to 50 bits")
        if self.params.secret is not SecretDistribution.UNIFORM_TERNARY:
            raise UnsupportedKeysError(
                "several parties make uniform ternary secrets only: OpenFHE 1.6.1 has no threshold "
                "protocol for the keys to a sparse secret, so their circuits cannot bootstrap; "
                "choose parameters for as many levels as the whole circuit takes"
            )

    @property
    def needed(self) -> tuple[NeededKey, ...]:
        """Each evaluation key, the relinearisation key first."""
        return keys_at(self.key_levels or self._top, self.params)

    @property
    def _top(self) -> KeyLevels:
        """Every key at the highest level."""
        depth, asked = self.params.depth, (self.rotations, self.relinearization, False)
        top = KeyLevels.same(depth, self.params, *asked)
        return replace(top, conjugation=depth) if self.conjugation else top

    def _check_levels(self) -> None:
        levels = self.key_levels or self._top
        known = all(0 <= level <= self.params.depth for level in levels.levels())
        if not known or not levels.same_keys(self._top):
            raise PartyError("a level of the parameters is needed for each evaluation key")

    @property
    def session(self) -> str:
        """The session's id: SHA-256 hex of the canonical JSON form."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    @property
    def schema_digest(self) -> str:
        """SHA-256 hex of the columns: names, order and ranges."""
        return hashlib.sha256(canonical(_columns_to_json(self.columns))).hexdigest()

    def index_of(self, party: str) -> int:
        """Return a party's number.

        Raises:
            PartyError: no party has this name.
        """
        if party not in self.parties:
            raise PartyError(f"no party {party!r} in this session: {', '.join(self.parties)}")
        return self.parties.index(party)

    def check_columns(self, names: Sequence[str]) -> None:
        """Compare the columns of a party's table with the agreed ones.

        Raises:
            SchemaMismatchError: names what is missing, unknown, or in another order.
        """
        agreed = [column.name for column in self.columns]
        missing = [name for name in agreed if name not in names]
        unknown = [str(name)[:64] for name in names if name not in agreed]
        if missing or unknown:
            raise SchemaMismatchError(
                f"the session's columns are {agreed}: missing here {missing}, unknown {unknown}"
            )
        if list(names) != agreed:
            raise SchemaMismatchError(f"columns in another order than agreed: {agreed}")

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "format": FORMAT,
            "name": self.name,
            "parties": list(self.parties),
            "params": self.params.to_json(),
            "rotations": list(self.rotations),
            "relinearization": self.relinearization,
            "conjugation": self.conjugation,
            "key_levels": None if self.key_levels is None else self.key_levels.to_json(),
            "columns": _columns_to_json(self.columns),
            "most_rows": self.most_rows,
            "smudging_bits": self.smudging_bits,
            "least_smudging_bits": self.least_smudging_bits,
            "precision_bits": self.precision_bits,
            "step_seconds": self.step_seconds,
            "model": self.model,
            "key_config": self.key_config,
            "nonce": self.nonce,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> SessionTerms:
        """Rebuild from `to_json`; everything is checked, the parameters are recomputed.

        Raises:
            PartyError: a field is missing, unknown or of the wrong type.
            ParameterError, SecurityError: from the parameters.
        """
        try:
            terms = cls(
                name=_typed(fields["name"], str),
                parties=tuple(_typed(p, str) for p in _typed(fields["parties"], list)),
                params=CryptoParams.from_json(_typed(fields["params"], dict)),
                rotations=tuple(_typed(r, int) for r in _typed(fields["rotations"], list)),
                relinearization=_typed(fields["relinearization"], bool),
                columns=tuple(_column(c) for c in _typed(fields["columns"], list)),
                most_rows=_typed(fields["most_rows"], int),
                nonce=_typed(fields["nonce"], str),
                conjugation=_typed(fields["conjugation"], bool),
                key_levels=_levels(fields["key_levels"]),
                smudging_bits=_typed(fields["smudging_bits"], int),
                least_smudging_bits=_typed(fields["least_smudging_bits"], int),
                precision_bits=_typed(fields["precision_bits"], int),
                step_seconds=_typed(fields["step_seconds"], int),
                model=_typed(fields["model"], str),
                key_config=_typed(fields["key_config"], str),
            )
        except (KeyError, TypeError, ValueError, ArtifactError) as error:
            raise PartyError(f"not the terms of a session: {error}") from error
        if terms.to_json() != dict(fields):
            raise PartyError("the terms have fields that this version does not know")
        return terms


def check_bootstraps(bootstraps: bool) -> None:
    """Refuse circuits that bootstrap.

    Raises:
        UnsupportedKeysError: they do.
    """
    if bootstraps:
        raise UnsupportedKeysError(
            "this circuit bootstraps, which takes keys to a sparse secret or a secret as small as "
            "one party's: OpenFHE 1.6.1 makes neither for several parties; ask for fewer "
            "iterations, so that the circuit fits into the levels of its parameters"
        )


def canonical(value: object) -> bytes:
    """Return JSON with one spelling: sorted keys, no spaces, ASCII, finite numbers.

    Raises:
        ParameterError: a number that is not finite.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise ParameterError("only finite numbers can be sent") from error
    return text.encode("ascii")


def _levels(value: object) -> KeyLevels | None:
    return None if value is None else KeyLevels.from_json(_typed(value, dict))


def _columns_to_json(columns: Sequence[Column]) -> list[object]:
    return [[column.name, column.low, column.high] for column in columns]


def _column(value: object) -> Column:
    name, low, high = _typed(value, list)
    return Column(_typed(name, str), float(low), float(high))


def _typed(value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{kind.__name__} expected, got {type(value).__name__}")
    return value
