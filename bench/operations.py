"""Question `operations`: how long each elementary operation of the OpenFHE backend takes.

Every ring is measured in a process of its own, on one thread. A round runs every operation at
every level once, warmed up, so that the machine's load falls on all of them alike; the figure is
the median CPU time over the rounds, which is the latency where no other process wants the core.
Plaintexts, rotation keys and the terms of weighted sums are different ones from call to call, as
they are in a circuit. The compiler's cost table is made of these figures:
`python -m bench operations --write-cost-table`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.question import Answer, Options
from bench.record import Record, Surroundings, look_around
from bench.subjects import ONE_THREAD, ROOT
from tacit.circuit import Plain, WeightedSumPlan
from tacit.model_compiler.op_times import OPERATIONS, Ring, fit
from tacit.moduli import digit_limbs
from tacit.params import CryptoParams, Security

__all__ = ["NAME", "SUMMARY", "draw", "run"]

NAME = "operations"
SUMMARY = "elementary operations of the OpenFHE backend, for the compiler's cost table"
COST_TABLE = ROOT / "model_compiler" / "op_times.json"
ROUNDS, QUICK_ROUNDS = 15, 3
STEPS = (1, 2, 3, 4)
PLAINTEXTS = 16
TERM_BYTES = 256 << 20
_HALF = np.asarray(0.5)


@dataclass(frozen=True, slots=True)
class Setting:
    """A ring and a chain of moduli; times do not depend on whether they are secure."""

    log_n: int
    depth: int
    dnum: int
    levels: tuple[int, ...]

    def params(self) -> CryptoParams:
        """Return parameters with moduli of 40 bits."""
        security = Security.UNCHECKED_INSECURE
        return CryptoParams.choose(self.log_n, self.depth, 40, 50, self.dnum, security)


SETTINGS = (
    Setting(13, 1, 2, (0, 1)),
    Setting(13, 3, 4, (0, 1, 2, 3)),
    Setting(13, 4, 3, (0, 1, 2, 4)),
    Setting(14, 5, 3, (0, 1, 3, 5)),
    Setting(14, 8, 3, (0, 1, 4, 8)),
    Setting(14, 8, 9, (0, 1, 4, 8)),
    Setting(15, 12, 3, (0, 1, 6, 12)),
)


def run(options: Options, console: Console) -> Answer:
    """Measure every ring; write the compiler's table if that is asked for."""
    around = look_around()
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    answer = Answer()
    for setting in SETTINGS:
        done = _measure_apart(setting, rounds)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
            answer.failures.append(f"{setting}: {last}")
            continue
        samples = json.loads(done.stdout)
        answer.records += _records(setting, samples, around)
        console.print(f"N = 2^{setting.log_n}, depth {setting.depth}, dnum {setting.dnum}: done")
    if answer.records:
        _show(console, answer.records)
    if options.write_cost_table and not answer.failures:
        write_cost_table(answer.records, COST_TABLE)
        console.print(f"{COST_TABLE} written")
    return answer


def rows_of(records: Sequence[Record]) -> list[dict[str, float]]:
    """Return the rows of the cost table, in milliseconds, one per ring and level."""
    rows: dict[str, dict[str, float]] = {}
    for record in records:
        place = {name: record.parameters[name] for name in _PLACE}
        row = rows.setdefault(json.dumps(place), place)
        row[record.metric.removesuffix("_seconds")] = round(1e3 * record.value, 4)
    return list(rows.values())


def write_cost_table(records: Sequence[Record], path: Path) -> None:
    """Write the compiler's table of operation times."""
    first = records[0]
    facts = {
        "machine": f"one thread of {first.hardware['cpu']}, {first.hardware['cores']} cores, "
        f"OpenFHE {version('openfhe')}, CPython {sys.version_info[0]}.{sys.version_info[1]}",
        "unit": f"milliseconds of CPU time, median of {first.runs} interleaved rounds",
        "hardware": first.hardware,
        "commit": first.commit,
        "load": first.load,
        "time": first.time,
    }
    lines = [f"{json.dumps(name)}: {json.dumps(fact)},\n" for name, fact in facts.items()]
    rows = ",\n".join(json.dumps(row) for row in rows_of(records))
    path.write_text("{\n" + "".join(lines) + '"rows": [\n' + rows + "\n]\n}\n", encoding="utf-8")


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw what the cost model makes of the table against what was measured."""
    rows = rows_of(records)
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for name in OPERATIONS:
        points = [(row[name], ms) for row, ms in _fitted(rows, name)]
        measured, fitted = zip(*points, strict=True)
        axes.scatter(measured, fitted, s=14, label=name)
    ends = [min(r.value for r in records) * 1e3, max(r.value for r in records) * 1e3]
    axes.plot(ends, ends, color="black", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="cost model, ms")
    axes.legend(fontsize=7)
    figure.suptitle(f"{NAME}: {records[0].hardware['cpu']}, commit {records[0].commit}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


_PLACE = ("log_n", "limbs", "specials", "dnum", "level")


def _fitted(rows: Sequence[dict[str, float]], name: str) -> list[tuple[dict[str, float], float]]:
    prices = fit(rows)
    found = []
    for row in rows:
        if name in row:
            digit = digit_limbs(int(row["limbs"]), int(row["dnum"]))
            ring = Ring(int(row["log_n"]), digit, int(row["specials"]), int(row["level"]) + 1)
            found.append((row, ring.operation(name).at(prices)))
    return found


def _show(console: Console, records: Sequence[Record]) -> None:
    rows = rows_of(records)
    table = Table(title="milliseconds (cost model / measured)", title_justify="left")
    for name in (*_PLACE, *OPERATIONS):
        table.add_column(name, justify="right", overflow="fold")
    fitted = {(id(row), name): ms for name in OPERATIONS for row, ms in _fitted(rows, name)}
    for row in rows:
        cells = [str(row[name]) for name in _PLACE]
        for name in OPERATIONS:
            ms = row.get(name)
            cells.append("" if ms is None else f"{ms:.3g} ({fitted[id(row), name] / ms:.2f})")
        table.add_row(*cells)
    console.print(table)


def _records(
    setting: Setting, samples: Mapping[str, Mapping[str, list[float]]], around: Surroundings
) -> list[Record]:
    params = setting.params()
    fixed = {
        **params.to_json(),
        "limbs": len(params.moduli),
        "specials": len(params.special_moduli),
    }
    return [
        Record(
            question=NAME,
            workload=f"N = 2^{setting.log_n}, depth {setting.depth}, dnum {setting.dnum}, "
            f"level {level}",
            subject="tacit",
            metric=f"{name}_seconds",
            value=statistics.median(seconds),
            unit="s",
            threads=1,
            parameters={**fixed, "level": int(level)},
            runs=len(seconds),
            hardware=around.hardware,
            commit=around.commit,
            samples=seconds,
            load=around.load,
            time=around.time,
        )
        for level, by_name in samples.items()
        for name, seconds in by_name.items()
    ]


def _measure_apart(setting: Setting, rounds: int) -> subprocess.CompletedProcess[str]:
    """Measure in a new process, since OpenFHE reads its number of threads when it is loaded."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), inherited.get("PYTHONPATH", "")]))
    request = json.dumps({**asdict(setting), "rounds": rounds})
    return subprocess.run(
        [sys.executable, "-m", "bench.operations", request],
        cwd=ROOT,
        env={**inherited, **ONE_THREAD, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


class _Ring:
    """Contexts, keys and operands of one setting, in the measuring process."""

    def __init__(self, setting: Setting) -> None:
        from tacit.runtime.backends.openfhe import OpenFHEEvaluator
        from tacit.runtime.backends.openfhe_parameters import make_context

        self._params = setting.params()
        self._context = make_context(self._params)
        self._keys = self._context.KeyGen()
        self._context.EvalMultKeyGen(self._keys.secretKey)
        self._context.EvalRotateKeyGen(self._keys.secretKey, list(STEPS))
        self._evaluator = OpenFHEEvaluator(self._params, self._context)
        self._generator = np.random.default_rng(0)

    def operations(self, level: int) -> dict[str, Callable[[], object]]:
        """Return every operation of the cost table that there is at a level."""
        context, evaluator = self._context, self._evaluator
        a = self._encrypt(level)
        digits = context.EvalFastRotationPrecompute(a)
        extended = context.EvalFastRotationExt(a, STEPS[0], digits, True)
        plains, steps, half = cycle(self._plains(level)), cycle(STEPS), Plain("half", _HALF)
        calls: dict[str, Callable[[], object]] = {
            "add": lambda: evaluator.add(a, a),
            "add_plain": lambda: evaluator.add_plain(a, next(plains)),
            "add_scalar": lambda: evaluator.add_plain(a, half),
            "hoist": lambda: context.EvalFastRotationPrecompute(a),
            "hoisted": lambda: context.EvalFastRotation(a, next(steps), digits),
            "extended": lambda: context.EvalFastRotationExt(a, next(steps), digits, True),
            "down": lambda: context.KeySwitchDown(extended),
            "rotate": lambda: evaluator.rotate(a, next(steps)),
        }
        if level:
            product = evaluator.multiply_plain(a, half)
            calls |= {
                "multiply_plain": lambda: evaluator.multiply_plain(a, next(plains)),
                "multiply_scalar": lambda: evaluator.multiply_plain(a, half),
                "rescale": lambda: evaluator.rescale(product),
                "multiply": lambda: evaluator.multiply(a, a),
                "weighted_term": self._weighted_sum(a, level),
            }
        return calls

    def terms(self, level: int) -> int:
        """Return how many ciphertexts the weighted sums have."""
        return int(np.clip(TERM_BYTES // self._params.ciphertext_bytes(level), 8, 48))

    def _encrypt(self, level: int) -> Any:
        values = self._generator.uniform(-1, 1, self._params.slots)
        depth = self._params.depth
        plaintext = self._context.MakeCKKSPackedPlaintext(values, 1, depth - level)
        return self._context.Encrypt(self._keys.publicKey, plaintext)

    def _plains(self, level: int) -> list[Plain]:
        """Return constants that are encoded already."""
        values = self._generator.uniform(-1, 1, (PLAINTEXTS, self._params.slots))
        plains = [Plain(f"plain {i}", row) for i, row in enumerate(values)]
        a = self._encrypt(level)
        for plain in plains:
            self._evaluator.add_plain(a, plain)
        return plains

    def _weighted_sum(self, a: Any, level: int) -> Callable[[], object]:
        terms = [a.Clone() for _ in range(self.terms(level))]
        weights = {"w": self._generator.uniform(-1, 1, (1, len(terms)))}
        plan = WeightedSumPlan(1, "w", "")
        return lambda: self._evaluator.weighted_sum(terms, plan, weights)


def _measure(setting: Setting, rounds: int) -> dict[int, dict[str, list[float]]]:
    """Return seconds by level and operation; those of a weighted sum are per term."""
    ring = _Ring(setting)
    calls = {level: ring.operations(level) for level in setting.levels}
    samples: dict[int, dict[str, list[float]]] = {level: defaultdict(list) for level in calls}
    for _ in range(rounds):
        for level, by_name in calls.items():
            found = {name: _seconds(call) for name, call in by_name.items()}
            if level:
                terms = found["weighted_term"] - found["rescale"]
                found["weighted_term"] = max(terms, 0.0) / ring.terms(level)
            for name, seconds in found.items():
                samples[level][name].append(seconds)
    return samples


def _seconds(call: Callable[[], object]) -> float:
    """Run twice and time the second run by the thread's CPU clock, which leaves out waiting."""
    call()
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _serve(request: str) -> None:
    fields = json.loads(request)
    rounds = fields.pop("rounds")
    setting = Setting(**{**fields, "levels": tuple(fields["levels"])})
    json.dump(_measure(setting, rounds), sys.stdout)


if __name__ == "__main__":
    _serve(sys.argv[1])
