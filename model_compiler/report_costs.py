"""What `tacit inspect` says of primes, of the parameters considered, and of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tacit.artifact import Artifact
from tacit.params import NARROW_BITS, CryptoParams

Facts = Mapping[str, Any]

CANDIDATE_HEAD = (
    "",
    "N",
    "scale",
    "first",
    "digits",
    "special",
    "narrow primes",
    "log2 QP",
    "time",
    "precision",
)
MEMORY_HEAD = ("memory", "native engine")
LAYER_HEAD = ("layer", "time", "ciphertexts")
_MOST_CANDIDATES = 8
_LONGEST = 60


def cost_lines(artifact: Artifact) -> list[str]:
    """Describe primes, keys and memory, and list candidates, for a terminal."""
    report: Facts = artifact.report
    lines = [f"target      {report.get('target', '?')}: {report.get('machine', '?')}"]
    lines.append("primes      " + primes_text(artifact.signature.params))
    lines += [f"memory      {name}: {size}" for name, size in memory_rows(report)]
    parameters = report.get("parameters", {})
    if parameters.get("reason"):
        lines.append(f"choice      {parameters['reason']}")
    for name, plan in report.get("plans", {}).items():
        lines += ["", f"layers of plan {name!r}"]
        lines += _aligned([LAYER_HEAD, *layer_rows(plan)])
    rows = candidate_rows(artifact)
    if rows:
        lines += ["", "parameters considered (* chosen, ± other bits of scale)"]
        lines += _aligned([CANDIDATE_HEAD, *rows])
    return lines


def primes_text(params: CryptoParams) -> str:
    """Return the bits of each class of primes, and how many take the fast path."""
    every = params.moduli + params.special_moduli
    narrow = sum(q >> NARROW_BITS == 0 for q in every)
    classes = {
        "first": params.moduli[:1],
        "scale": params.moduli[1:],
        "special": params.special_moduli,
    }
    sizes = [
        f"{len(primes)} {name} of {primes[0].bit_length()} bits"
        for name, primes in classes.items()
        if primes
    ]
    return f"{', '.join(sizes)}; {narrow} of {len(every)} on the fast path (below 2^{NARROW_BITS})"


def candidate_rows(artifact: Artifact) -> list[list[str]]:
    """Return the fastest candidates of the ring chosen, the choice, and its neighbours."""
    report: Facts = artifact.report
    parameters, params = report.get("parameters", {}), artifact.signature.params
    considered = [c for c in parameters.get("considered", ()) if isinstance(c, Mapping)]
    in_ring = [c for c in considered if c["log_n"] == params.log_n]
    ranked = sorted(in_ring, key=lambda c: float(c["seconds"]))
    shown = [c for i, c in enumerate(ranked) if i < _MOST_CANDIDATES or _is(c, params)]
    rows = [_candidate("*" if _is(c, params) else "", c) for c in shown]
    neighbours = [c for c in parameters.get("neighbours", ()) if not _is(c, params)]
    return rows + [_candidate("±", c) for c in neighbours]


def layer_rows(plan: Facts) -> list[list[str]]:
    """Return predicted time and ciphertext memory of every layer of a plan, in its order."""
    memory = plan.get("bytes_by_layer", {})
    return [
        [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…", _seconds(spent),
         _size(memory[name]) if name in memory else ""]
        for name, spent in plan.get("seconds_by_layer", {}).items()
    ]  # fmt: skip


def _seconds(value: float) -> str:
    return f"{1e3 * value:.3g} ms" if value < 1.0 else f"{value:.3g} s"


def memory_rows(report: Facts) -> list[tuple[str, str]]:
    """Return what takes memory, and how much."""
    facts = report.get("memory")
    if not isinstance(facts, Mapping):
        return []
    keys = facts["keys"]
    rows = [
        (
            "keys of one customer",
            f"{keys['keys']}, {_size(keys['total_bytes'])} in memory, upload "
            f"{_size(keys['upload_bytes'])}; untrimmed {_size(keys['full_bytes'])}, upload "
            f"{_size(keys['full_upload_bytes'])}",
        ),
        ("tables", _size(facts["table_bytes"])),
    ]
    return rows + [row for name, plan in facts["plans"].items() for row in _plan_rows(name, plan)]


def _plan_rows(name: str, plan: Facts) -> Iterator[tuple[str, str]]:
    sent, got = (_size(plan[f"{way}_frame_bytes"]) for way in ("input", "output"))
    inside, outside = (_size(plan[f"{way}_bytes"]) for way in ("input", "output"))
    yield f"plan {name}, request", f"{sent} in, {got} out ({inside} and {outside} in memory)"
    yield (
        f"plan {name}, server",
        f"constants {_size(plan['encoded_bytes'])} encoded, {_size(plan['value_bytes'])} as "
        f"numbers; working arrays {_size(plan['working_bytes'])}; an evaluation "
        f"{_size(plan['resident_bytes'])}; with the keys of one customer and tables "
        f"{_size(plan['process_bytes'])}",
    )


def _is(candidate: Facts, params: CryptoParams) -> bool:
    names = ("log_n", "log_scale", "log_first", "dnum")
    return all(candidate[name] == getattr(params, name) for name in names)


def _candidate(mark: str, facts: Facts) -> list[str]:
    return [
        mark,
        f"2^{facts['log_n']}",
        str(facts["log_scale"]),
        str(facts["log_first"]),
        str(facts["dnum"]),
        str(facts["special_primes"]),
        f"{facts['narrow_primes']} of {facts['primes']}",
        f"{facts['log_qp']:.0f}",
        f"{1e3 * facts['seconds']:.3g} ms",
        f"{facts['precision_bits']:.1f} bits",
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]


def _size(count: object) -> str:
    value = float(str(count))
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"
