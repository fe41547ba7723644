"""Decides who runs which node: the client before, the encrypted core, or the client after.

Before: scaling of the input that is exact and parameter-free enough to show the client. After: the
maximal set of trailing nodes that the client can run exactly, such as Softmax, ArgMax and labels.
Linear work next to the border stays encrypted, where it costs nothing and shows no weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tacit.model_compiler.onnx_ops.client_rules import client_rules
from tacit.model_compiler.onnx_ops.folding import SHAPE_OPS
from tacit.model_compiler.onnx_ops.loading import OnnxNode

FLOAT_TYPES = (1, 10, 11, 16)


class Place(Enum):
    """Where a node runs."""

    CONSTANT = "constant"
    PROLOGUE = "prologue"
    CORE = "core"
    EPILOGUE = "epilogue"


class Nature(Enum):
    """What the border between core and client depends on."""

    CLIENT_ONLY = "client only"  # cannot be computed on encrypted values
    PREFERS_CLIENT = "prefers client"  # can, but is exact and free at the client
    FLEXIBLE = "flexible"  # non-linear, follows its neighbours
    LINEAR = "linear"
    RELABEL = "relabel"
    SELECTION = "selection"
    JOIN = "join"


def _names(text: str) -> frozenset[str]:
    """Split a list of operator names."""
    return frozenset(text.split())


CLIENT_ONLY = _names(
    "Softmax LogSoftmax ArgMax ArgMin Normalizer Reciprocal Not And Or Greater GreaterOrEqual Less "
    "LessOrEqual Equal Where ReduceMax ReduceMin ReduceProd ReduceLogSumExp Log Sqrt LabelEncoder "
    "ZipMap ClassIndex ClassLabel PairVotes CouplePairs Sign Floor Ceil Round"
)
FLEXIBLE = _names("Relu Tanh Softplus Clip HardSigmoid Exp Abs Max Min Pow")
RELABEL = _names("Identity Dropout Reshape Flatten Squeeze Unsqueeze")
SELECTION = _names("Slice Split Gather ArrayFeatureExtractor Expand Transpose GatherColumns")
LABELS = _names("ClassIndex ClassLabel PairVotes LabelEncoder ZipMap")
LEADING = _names("Cast Scaler Normalizer Add Sub Mul Div Clip Concat")
# What follows leads only where it ends in something that cannot be computed on encrypted values.
ON_THE_WAY = _names("Neg Sum Mean Pow Abs Exp Max Min ReduceSum ReduceMean")
KEPT_LEADING = _names("Cast Concat")


@dataclass(frozen=True, slots=True, eq=False)
class Wiring:
    """Who reads what.

    Attributes:
        elements: number of elements of every constant known ahead, by name.
        widest: elements of one row of the largest input.
        computed: names of tensors that depend on the input's values.
    """

    nodes: Sequence[OnnxNode]
    computed: frozenset[str]
    elements: Mapping[str, int]
    outputs: frozenset[str]
    readers: Mapping[str, tuple[int, ...]]
    writers: Mapping[str, int]
    widest: int

    def operands(self, node: OnnxNode) -> list[str]:
        """Return the inputs of a node that depend on the model's input."""
        return [name for name in node.inputs if name in self.computed]

    def consumers(self, node: OnnxNode) -> list[int]:
        """Return the positions of the nodes that read any output of a node."""
        return [reader for name in node.outputs for reader in self.readers.get(name, ())]


def wire(
    nodes: Sequence[OnnxNode],
    inputs: Mapping[str, tuple[int, ...]],
    outputs: Sequence[str],
    elements: Mapping[str, int],
) -> Wiring:
    """Find which tensors depend on the input and who reads them."""
    computed = set(inputs)
    readers: dict[str, list[int]] = {}
    writers: dict[str, int] = {}
    for position, node in enumerate(nodes):
        writers.update(dict.fromkeys(node.outputs, position))
        if node.op in SHAPE_OPS and not node.domain:
            continue
        operands = [name for name in node.inputs if name in computed]
        if operands:
            computed.update(name for name in node.outputs if name)
        for name in operands:
            readers.setdefault(name, []).append(position)
    frozen = {name: tuple(positions) for name, positions in readers.items()}
    widest = max(math.prod(shape) for shape in inputs.values()) if inputs else 0
    outs = frozenset(outputs)
    return Wiring(nodes, frozenset(computed), elements, outs, frozen, writers, widest)


def partition(wiring: Wiring, *, keep_on_server: bool) -> list[Place]:
    """Choose a place for every node.

    Args:
        wiring: the nodes and who reads what.
        keep_on_server: keep everything encrypted that can be.
    """
    leading = _leading(wiring, keep_on_server=keep_on_server)
    trailing = _trailing(wiring, leading)
    wanted = _wants_client(keep_on_server)
    ends = {p for p in trailing if wanted(nature(wiring, wiring.nodes[p]))}
    forced = _reaches(wiring, trailing, ends)
    places: list[Place] = []
    for position, node in enumerate(wiring.nodes):
        if not any(name in wiring.computed for name in node.outputs):
            places.append(Place.CONSTANT)
        elif position in leading:
            places.append(Place.PROLOGUE)
        elif position in trailing and _runs_after(
            wiring, places, position, forced=position in forced, keep=keep_on_server
        ):
            places.append(Place.EPILOGUE)
        else:
            places.append(Place.CORE)
    return places


def nature(wiring: Wiring, node: OnnxNode) -> Nature:
    """Classify a node that the client could run."""
    operands = wiring.operands(node)
    match node.op:
        case "Sigmoid":
            return Nature.PREFERS_CLIENT
        case "HardSigmoid" | "Clip" if _is_bounded(node) and wiring.outputs.issuperset(
            node.outputs
        ):
            return Nature.PREFERS_CLIENT
        case "Cast":
            to_float = node.attributes.get("to") in FLOAT_TYPES
            return Nature.RELABEL if to_float else Nature.CLIENT_ONLY
        case "Div" if node.inputs[-1] in wiring.computed:
            return Nature.CLIENT_ONLY
        case "Mul" if len(operands) == 2:
            return Nature.FLEXIBLE
        case "Gather" | "ArrayFeatureExtractor" if node.inputs[0] not in wiring.computed:
            return Nature.CLIENT_ONLY
        case "Concat":
            return Nature.JOIN
    groups = {
        Nature.CLIENT_ONLY: CLIENT_ONLY,
        Nature.FLEXIBLE: FLEXIBLE,
        Nature.RELABEL: RELABEL,
        Nature.SELECTION: SELECTION,
    }
    return next((kind for kind, names in groups.items() if node.op in names), Nature.LINEAR)


def _is_bounded(node: OnnxNode) -> bool:
    """Tell whether values are limited on both sides, as probabilities are."""
    given = all(node.inputs[1:3]) and len(node.inputs) == 3
    return node.op == "HardSigmoid" or given or {"min", "max"} <= set(node.attributes)


def _wants_client(keep_on_server: bool) -> Callable[[Nature], bool]:
    wanted = {Nature.CLIENT_ONLY} if keep_on_server else {Nature.CLIENT_ONLY, Nature.PREFERS_CLIENT}
    return lambda kind: kind in wanted


def _trailing(wiring: Wiring, leading: set[int]) -> set[int]:
    """Nodes the client could run, behind which only such nodes come."""
    rules = client_rules()
    found: set[int] = set()
    for position in reversed(range(len(wiring.nodes))):
        node = wiring.nodes[position]
        runnable = (node.domain, node.op) in rules and position not in leading
        if node.op == "Concat" and len(wiring.operands(node)) != len(node.inputs):
            runnable = False
        if runnable and all(reader in found for reader in wiring.consumers(node)):
            found.add(position)
    return found


def _reaches(wiring: Wiring, among: set[int], ends: set[int]) -> set[int]:
    """Positions from which one of `ends` can be reached, itself included."""
    found: set[int] = set()
    for position in sorted(among, reverse=True):
        node = wiring.nodes[position]
        if position in ends or any(reader in found for reader in wiring.consumers(node)):
            found.add(position)
    return found


def _runs_after(
    wiring: Wiring, places: list[Place], position: int, *, forced: bool, keep: bool
) -> bool:
    """Decide for one trailing node; `places` holds the decisions for the nodes before it."""
    node = wiring.nodes[position]
    operands = wiring.operands(node)
    writers = [wiring.writers[name] for name in operands if name in wiring.writers]
    if any(places[writer] is Place.EPILOGUE for writer in writers):
        return True
    kind = nature(wiring, node)
    if keep:
        return kind is Nature.CLIENT_ONLY and (node.op in LABELS or node.op == "Cast")
    match kind:
        case Nature.CLIENT_ONLY | Nature.PREFERS_CLIENT | Nature.JOIN:
            return True
        case Nature.FLEXIBLE:
            return forced
        case Nature.SELECTION:
            shared = len(wiring.readers.get(operands[0], ())) > 1
            return shared or operands[0] in wiring.outputs
    return False


def _leading(wiring: Wiring, *, keep_on_server: bool) -> set[int]:
    """Nodes the client runs before encryption."""
    rules = client_rules()
    allowed = KEPT_LEADING if keep_on_server else LEADING | ON_THE_WAY | CLIENT_ONLY - LABELS
    reachable: set[int] = set()
    for position, node in enumerate(wiring.nodes):
        runnable = (node.domain, node.op) in rules and node.op in allowed | RELABEL | SELECTION
        if runnable and _may_lead(wiring, node) and _is_fed_by(wiring, node, reachable):
            reachable.add(position)
    useful = _before_the_core(wiring)
    ends = {p for p in reachable & useful if _ends_a_prologue(wiring, wiring.nodes[p])}
    strong = _reaches(wiring, reachable, ends)
    return _trim(wiring, reachable, strong)


def _ends_a_prologue(wiring: Wiring, node: OnnxNode) -> bool:
    return node.op == "Clip" or nature(wiring, node) is Nature.CLIENT_ONLY


def _before_the_core(wiring: Wiring) -> set[int]:
    """Positions behind which comes a node that the client cannot run, or must not know."""
    rules = client_rules()
    found: set[int] = set()
    for position in reversed(range(len(wiring.nodes))):
        readers = [wiring.nodes[reader] for reader in wiring.consumers(wiring.nodes[position])]
        behind = any(reader in found for reader in wiring.consumers(wiring.nodes[position]))
        if behind or any((reader.domain, reader.op) not in rules for reader in readers):
            found.add(position)
    return found


def _may_lead(wiring: Wiring, node: OnnxNode) -> bool:
    """Whether the operands are computed from the input or small constants."""
    operands = wiring.operands(node)
    given = [name for name in node.inputs if name]
    if node.op == "Concat":
        return operands == given
    if node.op in RELABEL | SELECTION:
        return operands == given[:1]
    if node.op in ("Cast", "Scaler", "Normalizer", "Clip") and operands != given[:1]:
        return False
    known = [name for name in given if name in wiring.elements]
    arithmetic = node.op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
    if arithmetic and any(wiring.elements[name] > wiring.widest for name in known):
        return False
    return len(operands) > 0 and len(known) + len(operands) == len(given)


def _is_fed_by(wiring: Wiring, node: OnnxNode, positions: set[int]) -> bool:
    return all(
        name not in wiring.writers or wiring.writers[name] in positions
        for name in wiring.operands(node)
    )


def _trim(wiring: Wiring, reachable: set[int], strong: set[int]) -> set[int]:
    """Give back to the core what no exact non-linear step needs and what saves nothing."""
    kept: set[int] = set()
    derived = set(strong)  # and what joins only results of such steps
    for position in sorted(reachable):
        node = wiring.nodes[position]
        vector = any(wiring.elements.get(name, 1) > 1 for name in node.inputs)
        weighs = vector and node.op in ("Add", "Sub", "Mul", "Div")
        operands = wiring.operands(node)
        writers = {wiring.writers.get(name, -1) for name in operands}
        if len(operands) > 1 and node.op in LEADING and writers <= kept and writers & derived:
            derived.add(position)
        joins = len(operands) > 1 and node.op != "Concat" and position not in derived
        cheap = node.op in LEADING | RELABEL | SELECTION and not weighs and not joins
        if (position in strong or cheap) and _is_fed_by(wiring, node, kept):
            kept.add(position)
    for position in sorted(kept, reverse=True):
        node = wiring.nodes[position]
        moves = node.op in RELABEL | SELECTION
        if moves and not any(reader in kept for reader in wiring.consumers(node)):
            kept.discard(position)
    return kept
