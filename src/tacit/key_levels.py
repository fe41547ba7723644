"""The highest level at which a circuit uses each evaluation key.

A key that switches ciphertexts of level l and below needs only the limbs q_0 .. q_l and those of P,
in the digits that these limbs fill: what is left out is never read. Levels count rescalings left,
so a low level means a small key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tacit.bootstrap import Bootstrap, stage_groups
from tacit.bootstrap_levels import raised_level
from tacit.circuit import Circuit, LinearPlan, Node, Op, Steps
from tacit.errors import ArtifactError, CircuitError
from tacit.params import CryptoParams, SecretDistribution
from tacit.slot_matrices import stage_plan


@dataclass(frozen=True, slots=True)
class KeyLevels:
    """The highest level at which each key is used; None for keys that are not.

    Attributes:
        rotations: by steps to the left, 1 to slots - 1.
        relinearization: of products of ciphertexts, before they are rescaled.
        conjugation: in bootstraps.
        from_sparse: of the switch back from a sparse secret, in bootstraps.
    """

    rotations: Mapping[int, int] = field(default_factory=dict)
    relinearization: int | None = None
    conjugation: int | None = None
    from_sparse: int | None = None

    @classmethod
    def same(
        cls,
        level: int,
        params: CryptoParams,
        rotations: Iterable[int],
        relinearization: bool,
        bootstraps: bool,
    ) -> KeyLevels:
        """Use every key at one level; steps are taken modulo the slots, 0 is left out."""
        steps = dict.fromkeys(step % params.slots for step in rotations)
        steps.pop(0, None)
        encapsulated = params.secret is SecretDistribution.SPARSE_ENCAPSULATED
        return cls(
            dict.fromkeys(steps, level),
            level if relinearization else None,
            level if bootstraps else None,
            level if bootstraps and encapsulated else None,
        )

    def same_keys(self, other: KeyLevels) -> bool:
        """Tell whether both use the same keys, at whatever levels."""
        return self.rotations.keys() == other.rotations.keys() and all(
            (a is None) == (b is None) for a, b in zip(self._others, other._others, strict=True)
        )

    @property
    def _others(self) -> tuple[int | None, int | None, int | None]:
        return self.relinearization, self.conjugation, self.from_sparse

    def levels(self) -> tuple[int, ...]:
        """Return the level of every key used."""
        return (*self.rotations.values(), *(x for x in self._others if x is not None))

    def to_json(self) -> dict[str, object]:
        """Return a JSON-serialisable dict."""
        return {
            "rotations": [[steps, level] for steps, level in sorted(self.rotations.items())],
            "relinearization": self.relinearization,
            "conjugation": self.conjugation,
            "from_sparse": self.from_sparse,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, object]) -> KeyLevels:
        """Rebuild from `to_json`.

        Raises:
            ArtifactError: a field is missing or of the wrong type, or a rotation given twice.
        """
        pairs = fields.get("rotations")
        if not isinstance(pairs, list) or any(_not_integers(pair) for pair in pairs):
            raise ArtifactError("levels of rotation keys are pairs of steps and a level")
        rotations = dict(pairs)
        if len(rotations) != len(pairs):
            raise ArtifactError("the level of a rotation key is given twice")
        names = ("relinearization", "conjugation", "from_sparse")
        return cls(rotations, *(_level(fields, name) for name in names))


def highest(uses: Iterable[KeyLevels]) -> KeyLevels:
    """Return the highest level of each key over all uses."""
    rotations: dict[int, int] = {}
    found: list[list[int]] = [[], [], []]
    for use in uses:
        for steps, level in use.rotations.items():
            rotations[steps] = max(level, rotations.get(steps, level))
        for levels, own in zip(found, use._others, strict=True):
            levels += [] if own is None else [own]
    return KeyLevels(rotations, *(max(levels, default=None) for levels in found))


def circuit_key_levels(circuit: Circuit, params: CryptoParams) -> KeyLevels:
    """Find the highest level at which a circuit uses each key.

    Args:
        circuit: for `params.slots` slots.
        params: the parameters; they decide how bootstraps work.

    Raises:
        LevelError: the parameters have too few levels for a bootstrap.
        CircuitError: an operation rotates and is not known here.
    """
    found = highest(_uses(node, circuit, params) for node in circuit.nodes)
    if found.rotations.keys() != circuit.rotations:
        raise CircuitError("rotations at unknown levels: an operation is missing in `key_levels`")
    return found


def _uses(node: Node, circuit: Circuit, params: CryptoParams) -> KeyLevels:
    level = circuit.types[node.inputs[0]].level
    match node.op, node.attribute:
        case Op.ROTATE, Steps(count):
            return KeyLevels(_at(level, (count,), circuit.slots))
        case Op.LINEAR, LinearPlan() as plan:
            return _linear(plan, level, circuit.slots)
        case ((Op.MULTIPLY | Op.CHEBYSHEV), _):
            return KeyLevels(relinearization=level)
        case Op.BOOTSTRAP, Bootstrap() as plan:
            return _bootstrap(plan, circuit.constants[plan.series].shape[1] - 1, params)
    return KeyLevels()


def _linear(plan: LinearPlan, level: int, slots: int) -> KeyLevels:
    """Baby and giant steps come before the rescale, folds after it."""
    babies = {term.baby for term in plan.terms}
    giants = [plan.giant_rotations(output) for output in range(plan.outputs)]
    before = _at(level, babies.union(*giants), slots)
    after = _at(level - 1, {step for steps in plan.fold_sums() for step in steps}, slots)
    return highest((KeyLevels(before), KeyLevels(after)))


def _bootstrap(plan: Bootstrap, degree: int, params: CryptoParams) -> KeyLevels:
    """Slots go to coefficients at the lowest levels and back at the highest."""
    slots, top = params.slots, raised_level(params, plan, degree)
    repeats = [slots >> i for i in range(1, (slots >> plan.log_slots).bit_length())]
    inside = top - plan.to_slots
    encapsulated = params.secret is SecretDistribution.SPARSE_ENCAPSULATED
    uses = [KeyLevels(_at(top, repeats, slots), inside, inside, top if encapsulated else None)]
    down = stage_groups(plan.log_slots, plan.to_coefficients)
    up = stage_groups(plan.log_slots, plan.to_slots)[::-1]
    for groups, start in ((down, plan.to_coefficients), (up, top)):
        for i, group in enumerate(groups):
            uses.append(_linear(stage_plan(plan.log_slots, group), start - i, slots))
    return highest(uses)


def _at(level: int, steps: Iterable[int], slots: int) -> dict[int, int]:
    return dict.fromkeys({step % slots for step in steps} - {0}, level)


def _not_integers(pair: object) -> bool:
    return not (
        isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
    )


def _level(fields: Mapping[str, object], name: str) -> int | None:
    level = fields.get(name)
    if level is not None and type(level) is not int:
        raise ArtifactError(f"{name}: a level or null expected")
    return level
