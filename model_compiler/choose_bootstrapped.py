"""Choosing parameters and stages of bootstrapped circuits: ring, scale, digits, by predicted time.

Most of the time goes into the bootstraps, so all combinations are ranked by these; the circuit is
lowered for the most promising ones, and what it takes as a whole decides, among those whose noise
leaves the precision asked for and whose keys keep the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import exponential
from tacit.errors import LevelError, ParameterError, SecurityError
from tacit.model_compiler.bootstrap import (
    STAGES,
    BootstrapChoice,
    parameters_for,
    priced_bootstrap,
)
from tacit.model_compiler.choose_params import Candidate, Choice, describe
from tacit.model_compiler.cost import predict
from tacit.model_compiler.graph import Fourier, Graph
from tacit.model_compiler.lowering.arrangement import power_of_two_above
from tacit.model_compiler.lowering.depths import latency_cost, required_levels
from tacit.model_compiler.lowering.latency import LinearMaps, Stages, lower_latency, smallest_cells
from tacit.model_compiler.lowering.lowered import Lowered
from tacit.model_compiler.noise import predicted_error
from tacit.model_compiler.op_times import Backend, MachineTimes
from tacit.params import NARROW_BITS, CryptoParams
from tacit.precision import bits

RINGS = (15, 16, 17)
SCALES = tuple(range(28, 51))
MOST_KEY_BYTES = 3.0e9
"""Of all evaluation keys, where the user sets no limit: more only if nothing fits."""
# Circuits lowered and priced as a whole; and of these, those that keep precision and key budget.
_MOST_LOWERED, _MOST_KEPT = 8, 3
# Bits by which the precision may be better than another scale in the same ring lets expect.
_LUCK = 0.75
# Of the keys of linear maps, what splits chosen later, in sequence, cannot save.
_LASTING_KEYS = 0.2
# Fewer keys are worth so much time.
_TIE = 1.02
# Beyond this multiple of the best, bootstraps alone take too long to look further.
_HOPELESS = 1.3


@dataclass(frozen=True, slots=True)
class Needs:
    """What the bootstraps of a graph need.

    Attributes:
        level: highest level that one must reach.
        inputs: highest level of the graph's inputs.
        degree: most harmonics.
        period: of all series.
    """

    level: int
    inputs: int
    degree: int
    period: float

    @classmethod
    def of(cls, graph: Graph, stages: Stages) -> Needs:
        """Return the needs of a graph with Fourier nodes."""
        levels = required_levels(graph, latency_cost, stages.entry)
        nodes = [node for node in graph.nodes if isinstance(node, Fourier)]
        return cls(
            max(levels[node.output] for node in nodes),
            max(levels[name] for name in graph.inputs),
            max(node.degree for node in nodes),
            nodes[0].period,
        )


@dataclass(frozen=True, slots=True)
class _Option:
    """A combination to be judged; time and keys are those of its bootstraps alone."""

    params: CryptoParams
    stages: Stages
    seconds: float
    key_bytes: int


_Judged = tuple[_Option, Candidate, float]
"""An option, the whole circuit's figures, and the bytes of all its keys."""


@dataclass(frozen=True, slots=True)
class BootstrappedChoice:
    """Parameters, and the stages of all bootstraps."""

    choice: Choice
    stages: Stages


def choose_bootstrapped(
    graph: Graph,
    precision_bits: float,
    times: MachineTimes,
    maps: LinearMaps,
    *,
    most_key_bytes: float = float("inf"),
    rings: Sequence[int] = RINGS,
) -> BootstrappedChoice:
    """Choose 128-bit secure parameters for a scaled graph with Fourier nodes.

    Args:
        graph: the graph.
        precision_bits: bits that the outputs, in units of their half range, must be right to.
        times: prices of the machine.
        maps: of the graph.
        most_key_bytes: limit on the evaluation keys.
        rings: base-2 logarithms of ring dimensions to consider.

    Raises:
        ParameterError: nothing is secure and precise and within the limit on keys.
    """
    search = _Search(graph, times, _Judge(graph, times, maps), precision_bits)
    budget = min(most_key_bytes, MOST_KEY_BYTES)
    for some in (rings[:2], rings[2:]):
        for limits in ((0.0, budget), (budget, most_key_bytes)):
            if not search.precise:
                search.through(some, limits)
    allowed = [f for f in search.precise if f[2] <= most_key_bytes]
    allowed = allowed or [f for f in search.precise if _least_keys(f) <= most_key_bytes]
    if not allowed:
        raise ParameterError(_nothing(search.found, precision_bits, most_key_bytes))
    modest = [f for f in allowed if _least_keys(f) <= budget]
    soonest = min((f[1].seconds for f in modest), default=float("inf"))
    close = [f for f in modest if f[1].seconds <= _TIE * soonest]
    option, best_one, _ = min(close or allowed, key=_least_keys)
    choice = Choice(
        option.params,
        best_one.seconds,
        best_one.precision_bits,
        tuple(candidate for _, candidate, _ in search.found),
        reason=f"{describe(option.params)}: the fastest of {len(search.found)} looked at as a "
        f"whole, of {search.options} secure combinations of ring, scale and stages",
    )
    return BootstrappedChoice(choice, option.stages)


@dataclass(slots=True)
class _Search:
    """Lowers and prices the most promising options, ring by ring, until enough are good.

    Attributes:
        found: what was judged.
        options: how many there were to choose from.
    """

    graph: Graph
    times: MachineTimes
    judge: Callable[[_Option], tuple[Candidate, float]]
    precision_bits: float
    found: list[_Judged] = field(default_factory=list)
    options: int = 0

    @property
    def precise(self) -> list[_Judged]:
        """What is precise enough."""
        return [f for f in self.found if f[1].precision_bits >= self.precision_bits]

    def through(self, rings: Sequence[int], limits: tuple[float, float]) -> None:
        """Look at the options of some rings whose bootstraps' keys lie between two limits."""
        least, most = limits
        for log_n in rings:
            smallest = _options(self.graph, self.times, log_n, SCALES[:1])
            if all(option.seconds > _HOPELESS * self._best(most) for option in smallest):
                continue
            options = list(_options(self.graph, self.times, log_n, SCALES))
            self.options += len(options)
            self._judged([o for o in options if least < o.key_bytes <= most], most)

    def _judged(self, options: Sequence[_Option], budget: float) -> None:
        judged = kept = 0
        for option in sorted(options, key=lambda o: (o.seconds, -o.params.log_scale)):
            enough = kept >= _MOST_KEPT or (self.precise and judged >= _MOST_LOWERED)
            if enough or option.seconds > _HOPELESS * self._best(budget):
                break
            alike = any(_cost_alike(option, found) for found, *_ in self.found)
            if alike or _is_too_coarse(option, self.found, self.precision_bits):
                continue
            self.found.append((option, *self.judge(option)))
            judged, kept = judged + 1, kept + (self.found[-1] in self._kept(budget))

    def _best(self, budget: float) -> float:
        """Return the least time of what is precise enough and within the limit on keys."""
        return min((f[1].seconds for f in self._kept(budget)), default=float("inf"))

    def _kept(self, budget: float) -> list[_Judged]:
        return [f for f in self.precise if _least_keys(f) <= budget]


def given_stages(graph: Graph, params: CryptoParams, times: MachineTimes) -> Stages:
    """Choose the stages for parameters that are given.

    Raises:
        ParameterError: the parameters have too few levels.
    """
    found = []
    for first, last in product((1, *STAGES), repeat=2):
        if max(first, last) >= params.log_n:
            continue
        stages = Stages(first, last, _spare(times))
        needs = Needs.of(graph, stages)
        plan = _plan(needs, params.log_n, stages)
        try:
            seconds = priced_bootstrap(params, plan, needs.degree, times).seconds
        except LevelError:
            continue
        if needs.inputs <= params.depth:
            found.append((seconds, first, last))
    if not found:
        raise ParameterError(
            f"{describe(params)}: too few levels to bootstrap this model; give deeper parameters"
        )
    _, first, last = min(found)
    return Stages(first, last, _spare(times))


def _spare(times: MachineTimes) -> int:
    """OpenFHE's bootstraps want one level more before their first stages."""
    return 1 if times.backend is Backend.OPENFHE else 0


def _plan(needs: Needs, log_n: int, stages: Stages) -> Bootstrap:
    first, last = stages.to_coefficients, stages.to_slots
    return Bootstrap("series", needs.level, log_n - 1, first, last, needs.period)


def _options(
    graph: Graph, times: MachineTimes, log_n: int, scales: Sequence[int]
) -> Iterator[_Option]:
    count = _bootstraps(graph, 1 << (log_n - 1))
    known: dict[tuple[object, ...], BootstrapChoice] = {}
    for first, last in product(STAGES, STAGES):
        stages = Stages(first, last, _spare(times))
        needs = Needs.of(graph, stages)
        plan = _plan(needs, log_n, stages)
        for log_scale in scales:
            try:
                params = parameters_for(log_n, plan, needs.degree, log_scale, needs.inputs)
            except (SecurityError, ParameterError):
                break
            alike = _limbs(params), plan, exponential(params, plan.period)
            if alike not in known:
                known[alike] = priced_bootstrap(params, plan, needs.degree, times)
            each = known[alike]
            yield _Option(params, stages, count * each.seconds, each.key_bytes)


def _limbs(params: CryptoParams) -> tuple[object, ...]:
    """Return what prices depend on beside the ring: kinds of primes, not their values."""
    primes = params.moduli + params.special_moduli
    narrow = tuple(q >> NARROW_BITS == 0 for q in primes)
    return params.dnum, len(params.special_moduli), narrow


def _bootstraps(graph: Graph, slots: int) -> int:
    """Count the ciphertexts that are bootstrapped, one row at a time."""
    sizes = [graph.size(node.input) for node in graph.nodes if isinstance(node, Fourier)]
    return sum(-(-power_of_two_above(size) // slots) for size in sizes)


class _Judge:
    """Lowers a graph for an option, and prices the whole circuit."""

    def __init__(self, graph: Graph, times: MachineTimes, maps: LinearMaps) -> None:
        self._graph, self._times, self._maps = graph, times, maps
        self._lowered: dict[tuple[int, Stages], Lowered] = {}

    def __call__(self, option: _Option) -> tuple[Candidate, float]:
        """Return the candidate and the bytes of its keys."""
        lowered = self._lower(option.params, option.stages)
        prediction = predict(lowered.circuit, option.params, self._times)
        # Outputs are stored in [-1/2, 1/2].
        precision = bits(2.0 * predicted_error(lowered, option.params))
        return Candidate(option.params, prediction.seconds, precision), prediction.key_bytes

    def _lower(self, params: CryptoParams, stages: Stages) -> Lowered:
        key = (params.log_n, replace(stages))
        if key not in self._lowered:
            slots = params.slots
            cells = min(smallest_cells(self._graph), slots)
            self._lowered[key] = lower_latency(
                self._graph, slots, cells, maps=self._maps, stages=stages
            )
        return self._lowered[key]


def _least_keys(found: _Judged) -> float:
    """Estimate the bytes of all keys with splits that save them."""
    option, _, total = found
    return option.key_bytes + _LASTING_KEYS * (total - option.key_bytes)


def _cost_alike(option: _Option, other: _Option) -> bool:
    """Tell whether two options differ in the bits of their scales alone."""
    same_ring = option.params.log_n == other.params.log_n
    return same_ring and option.stages == other.stages and option.seconds == other.seconds


def _is_too_coarse(option: _Option, found: Sequence[_Judged], precision_bits: float) -> bool:
    """Tell whether other scales in the same ring show that this one is not precise enough.

    Every bit of scale is a bit of precision.
    """
    likely = [
        candidate.precision_bits + option.params.log_scale - candidate.params.log_scale
        for _, candidate, _ in found
        if candidate.params.log_n == option.params.log_n
    ]
    return bool(likely) and max(likely) < precision_bits - _LUCK


def _nothing(found: Sequence[_Judged], precision_bits: float, most: float) -> str:
    if not found:
        return (
            "no 128-bit secure parameters bootstrap this model: it needs too many levels between "
            "two activations; use fewer layers without activations, or smaller polynomials"
        )
    best = max(found, key=lambda f: f[1].precision_bits)
    least = min(found, key=lambda f: f[2])
    return (
        f"no secure parameters give {precision_bits:.1f} bits with keys of at most {most / 1e6:.0f}"
        f" MB: the most precise give {best[1].precision_bits:.1f} bits, the smallest keys take "
        f"{least[2] / 1e6:.0f} MB; ask for less precision or allow larger keys"
    )
