"""What a client must know of a compiled model: the public half of an artifact.

A signature says which CKKS parameters and evaluation keys to make, how to turn rows into
ciphertexts and ciphertexts into answers. It holds no weight of the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tacit.clear_steps import ClearStep
from tacit.errors import ArtifactError
from tacit.evaluation_keys import NeededKey, full_key, keys_at, keys_bytes
from tacit.key_levels import KeyLevels, highest
from tacit.known_answer import KnownAnswer
from tacit.layout import Layout
from tacit.params import CryptoParams

Floats = NDArray[np.float64]

# What a ciphertext costs outside its evaluation, used only to choose a plan: an assumption for
# encrypting, framing and a gigabit link together, not a measurement.
CIPHERTEXT_BYTES_PER_SECOND = 50e6


@dataclass(frozen=True, slots=True, eq=False)
class TensorSpec:
    """One encrypted input or output tensor of a plan.

    Attributes:
        name: tensor name in the encrypted core.
        shape: per-row shape, batch axis removed.
        layout: where its elements sit.
        scale, offset: stored = (value - offset) / scale; shape () or (size,).
        low, high: range the model was calibrated for, in value units; shape () or (size,).
        level: level of its ciphertexts.
        degree: degree of its ciphertexts.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    scale: Floats
    offset: Floats
    low: Floats
    high: Floats
    level: int
    degree: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """One way to run the model: "latency", "batch", …

    Attributes:
        batch: rows per evaluation; the layouts may hold one more, for the known answer.
        rotations: rotation steps (left, in slots) whose Galois keys the plan needs.
        relinearization: whether it needs the relinearisation key.
        seconds: predicted evaluation time on the reference machine.
        precision_bits: predicted precision of the outputs against the float model.
        bootstraps: whether it needs the keys of bootstrapping (`needed_keys`).
        key_levels: the highest level at which each of these keys is used; None for the top of the
            parameters, as in artifacts that do not say.
        known_answer: what the reserved row holds and must answer, or None.
        probe: what an evaluation of its own holds and must answer, or None; of plans that have no
            room for a row more.
    """

    name: str
    batch: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    rotations: tuple[int, ...]
    relinearization: bool
    seconds: float
    precision_bits: float
    bootstraps: bool = False
    key_levels: KeyLevels | None = None
    known_answer: KnownAnswer | None = None
    probe: KnownAnswer | None = None

    def __post_init__(self) -> None:
        if self.known_answer is not None:
            self.known_answer.check_fits(self, reserved=True)
        if self.probe is not None:
            self.probe.check_fits(self, reserved=False)

    def key_levels_for(self, params: CryptoParams) -> KeyLevels:
        """Return the highest level at which each key is used."""
        return self.key_levels or self._at_the_top(params)

    def check_key_levels(self, params: CryptoParams) -> None:
        """Return if the levels are of the plan's keys and within the parameters.

        Raises:
            ArtifactError: they are not.
        """
        found = self.key_levels_for(params)
        if not found.same_keys(self._at_the_top(params)):
            raise ArtifactError(f"plan {self.name!r} lists levels of other keys than it needs")
        if any(not 0 <= level <= params.depth for level in found.levels()):
            raise ArtifactError(
                f"plan {self.name!r} uses keys at levels {sorted(set(found.levels()))}: "
                f"0 to {params.depth} expected"
            )

    def _at_the_top(self, params: CryptoParams) -> KeyLevels:
        asked = (self.rotations, self.relinearization, self.bootstraps)
        return KeyLevels.same(params.depth, params, *asked)

    def evaluations(self, rows: int) -> int:
        """Count the evaluations that `rows` rows need."""
        return -(-rows // self.batch)


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """The public half of a compiled model.

    Attributes:
        model_inputs: ONNX input names and per-row shapes, in order.
        model_outputs: ONNX output names, in order.
        prologue: clear steps at the client, before encryption.
        epilogue: clear steps at the client, after decryption.
        private_digest: SHA-256 hex of the private half, pinning the model version.
    """

    model: str
    version: str
    params: CryptoParams
    plans: tuple[Plan, ...]
    model_inputs: Mapping[str, tuple[int, ...]]
    model_outputs: tuple[str, ...]
    prologue: tuple[ClearStep, ...] = ()
    epilogue: tuple[ClearStep, ...] = ()
    private_digest: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.plans:
            raise ArtifactError("a signature needs at least one plan")
        for plan in self.plans:
            plan.check_key_levels(self.params)

    @property
    def rotations(self) -> tuple[int, ...]:
        """Every rotation step some plan needs, sorted."""
        return tuple(sorted({step for plan in self.plans for step in plan.rotations}))

    @property
    def relinearization(self) -> bool:
        """Whether some plan needs the relinearisation key."""
        return any(plan.relinearization for plan in self.plans)

    @property
    def bootstraps(self) -> bool:
        """Whether some plan needs the keys of bootstrapping."""
        return any(plan.bootstraps for plan in self.plans)

    @property
    def key_levels(self) -> KeyLevels:
        """The highest level at which some plan uses each key."""
        return highest(plan.key_levels_for(self.params) for plan in self.plans)

    @property
    def needed_keys(self) -> tuple[NeededKey, ...]:
        """Every evaluation key that some plan needs, with as many limbs as some plan needs."""
        return keys_at(self.key_levels, self.params)

    @property
    def key_bytes(self) -> int:
        """Bytes of all evaluation keys in memory, 8 per residue."""
        return keys_bytes(self.needed_keys, self.params)

    @property
    def full_key_bytes(self) -> int:
        """Bytes of the same keys with all limbs."""
        full = (full_key(key, self.params) for key in self.needed_keys)
        return keys_bytes(full, self.params)

    def plan(self, name: str) -> Plan:
        """Return the plan of that name.

        Raises:
            ArtifactError: there is none.
        """
        for plan in self.plans:
            if plan.name == name:
                return plan
        raise ArtifactError(f"no plan {name!r}: this model has {[p.name for p in self.plans]}")

    def plan_for(self, rows: int) -> Plan:
        """Choose the plan predicted to answer first, encryption and transfer included."""
        return min(self.plans, key=lambda plan: self.seconds_for(plan, rows))

    def seconds_for(self, plan: Plan, rows: int) -> float:
        """Predict seconds from rows to answers: evaluation, and moving the ciphertexts."""
        moved = self.request_bytes(plan) / CIPHERTEXT_BYTES_PER_SECOND
        return plan.evaluations(rows) * (plan.seconds + moved)

    def request_bytes(self, plan: Plan) -> int:
        """Bytes of ciphertexts of one evaluation, both ways, 8 per residue."""
        return sum(
            spec.layout.ciphertexts * self.params.ciphertext_bytes(spec.level)
            for spec in plan.inputs + plan.outputs
        )

    @property
    def digest(self) -> str:
        """SHA-256 hex of the canonical JSON form."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def key_config(self) -> str:
        """SHA-256 hex of what evaluation keys depend on: parameters and operations."""
        parts: list[object] = [self.params.digest.hex(), list(self.rotations), self.relinearization]
        parts += ["bootstraps"] if self.bootstraps else []
        levels = self.key_levels
        if any(level < self.params.depth for level in levels.levels()):
            parts.append(levels.to_json())
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "model": self.model,
            "version": self.version,
            "params": self.params.to_json(),
            "plans": [_plan_to_json(plan) for plan in self.plans],
            "model_inputs": {name: list(shape) for name, shape in self.model_inputs.items()},
            "model_outputs": list(self.model_outputs),
            "prologue": [step.to_json() for step in self.prologue],
            "epilogue": [step.to_json() for step in self.epilogue],
            "private_digest": self.private_digest,
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> Signature:
        """Rebuild from `to_json`; parameters are recomputed and checked.

        Raises:
            ArtifactError: a field is missing or of the wrong type.
            ParameterError, SecurityError: from the parameters.
        """
        try:
            return cls(
                model=_text(fields["model"]),
                version=_text(fields["version"]),
                params=CryptoParams.from_json(_mapping(fields["params"])),
                plans=tuple(_plan_from_json(_mapping(p)) for p in _sequence(fields["plans"])),
                model_inputs={
                    name: _shape(shape) for name, shape in _mapping(fields["model_inputs"]).items()
                },
                model_outputs=tuple(_text(n) for n in _sequence(fields["model_outputs"])),
                prologue=_steps(fields["prologue"]),
                epilogue=_steps(fields["epilogue"]),
                private_digest=_text(fields["private_digest"]),
                notes={k: _text(v) for k, v in _mapping(fields["notes"]).items()},
            )
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise ArtifactError(f"not a signature: {type(error).__name__}: {error}") from error


def _plan_to_json(plan: Plan) -> dict[str, object]:
    levels = {} if plan.key_levels is None else {"key_levels": plan.key_levels.to_json()}
    answers = {"known_answer": plan.known_answer, "probe": plan.probe}
    return {
        "name": plan.name,
        "batch": plan.batch,
        "inputs": [_spec_to_json(spec) for spec in plan.inputs],
        "outputs": [_spec_to_json(spec) for spec in plan.outputs],
        "rotations": list(plan.rotations),
        "relinearization": plan.relinearization,
        "seconds": plan.seconds,
        "precision_bits": plan.precision_bits,
        "bootstraps": plan.bootstraps,
        **levels,
        **{kind: _known_to_json(known) for kind, known in answers.items() if known is not None},
    }


def _known_to_json(known: KnownAnswer) -> dict[str, object]:
    return {
        "inputs": {name: values.tolist() for name, values in known.inputs.items()},
        "outputs": {name: values.tolist() for name, values in known.outputs.items()},
        "tolerance": known.tolerance,
    }


def _known_from_json(value: object) -> KnownAnswer | None:
    if value is None:
        return None
    fields = _mapping(value)
    inputs, outputs = (
        {n: np.asarray(v, dtype=np.float64) for n, v in _mapping(fields[kind]).items()}
        for kind in ("inputs", "outputs")
    )
    return KnownAnswer(inputs, outputs, float(str(fields["tolerance"])))


def _plan_from_json(fields: dict[str, object]) -> Plan:
    return Plan(
        name=_text(fields["name"]),
        batch=int(str(fields["batch"])),
        inputs=tuple(_spec_from_json(_mapping(s)) for s in _sequence(fields["inputs"])),
        outputs=tuple(_spec_from_json(_mapping(s)) for s in _sequence(fields["outputs"])),
        rotations=tuple(int(str(step)) for step in _sequence(fields["rotations"])),
        relinearization=bool(fields["relinearization"]),
        seconds=float(str(fields["seconds"])),
        precision_bits=float(str(fields["precision_bits"])),
        bootstraps=bool(fields.get("bootstraps", False)),
        key_levels=(
            KeyLevels.from_json(_mapping(fields["key_levels"])) if "key_levels" in fields else None
        ),
        known_answer=_known_from_json(fields.get("known_answer")),
        probe=_known_from_json(fields.get("probe")),
    )


def _spec_to_json(spec: TensorSpec) -> dict[str, object]:
    arrays = {k: getattr(spec, k).tolist() for k in ("scale", "offset", "low", "high")}
    return {
        "name": spec.name,
        "shape": list(spec.shape),
        "layout": spec.layout.to_json(),
        "level": spec.level,
        "degree": spec.degree,
        **arrays,
    }


def _spec_from_json(fields: dict[str, object]) -> TensorSpec:
    layout = Layout.from_json(_mapping(fields["layout"]))
    arrays = [_array(fields[k], layout.size) for k in ("scale", "offset", "low", "high")]
    return TensorSpec(
        _text(fields["name"]),
        _shape(fields["shape"]),
        layout,
        arrays[0],
        arrays[1],
        arrays[2],
        arrays[3],
        int(str(fields["level"])),
        int(str(fields["degree"])),
    )


def _array(value: object, size: int) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.shape not in ((), (size,)) or not np.all(np.isfinite(array)):
        raise ArtifactError(f"expected a finite number or {size} of them")
    return array


def _steps(value: object) -> tuple[ClearStep, ...]:
    return tuple(ClearStep.from_json(_mapping(step)) for step in _sequence(value))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ArtifactError(f"expected text, got {type(value).__name__}")
    return value


def _mapping(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ArtifactError(f"expected a JSON object, got {type(value).__name__}")
    return value


def _sequence(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ArtifactError(f"expected a JSON list, got {type(value).__name__}")
    return value


def _shape(value: object) -> tuple[int, ...]:
    return tuple(int(str(extent)) for extent in _sequence(value))
