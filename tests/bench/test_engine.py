from __future__ import annotations

import io
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from bench.engine import OPERATIONS, TRANSFORMS
from bench.engine_report import draw_ratios, goal_of, records_of, show_summary
from bench.engine_work import PATHS, Shape, Work, transform_work, workloads
from bench.record import Surroundings
from bench.roofline import Machine, measure_machine
from tacit.kernels.compile_sources import find_compiler
from tacit.kernels.library import InstructionSet
from tacit.params import CryptoParams, Security

AROUND = Surroundings({"cpu": "model", "cores": 2, "memory_gib": 4.0}, "abc", 0.1, "now")
MACHINE = Machine(1, {path.kind: 1e9 for pair in PATHS.values() for path in pair}, 8e9, 4e9, 1e9)


def make_shape(log_n: int = 10, instructions: InstructionSet = InstructionSet.AVX512) -> Shape:
    params = CryptoParams.choose(log_n, 5, 40, 50, 3, Security.UNCHECKED_INSECURE)
    return Shape(log_n, params.moduli, params.special_moduli, params.dnum, instructions)


def found(theirs: list[float], ours: list[float]) -> dict[str, object]:
    shape = make_shape()
    return {
        "parameters": {"log_n": 10, "dnum": 3, "instructions": "avx512"},
        "moduli": shape.moduli,
        "specials": shape.specials,
        "samples": {
            "rotate": {
                "openfhe": {"seconds": theirs, "cpu_seconds": theirs},
                "tacit": {"seconds": ours, "cpu_seconds": ours},
            }
        },
    }


def test_a_transform_is_half_n_log_n_butterflies() -> None:
    shape = make_shape()
    narrow = transform_work(shape, shape.moduli[1])
    assert narrow.narrow == 3 * 5 * 1024
    assert narrow.size_bytes == 2 * 8 * 1024 + 16 * 1024
    wide = transform_work(shape, shape.specials[0])
    assert (wide.narrow, wide.wide) == (0, 5 * 5 * 1024)


def test_the_work_of_a_rotation_is_counted_by_hand() -> None:
    """One narrow limb, one wide prime of P, one digit, in plain integers."""
    shape = Shape(10, (12289,), ((1 << 59) + 1,), 1, InstructionSet.SCALAR)
    rotation = workloads(shape, 8, 8)["rotate"]
    transforms = (1 + 1) + (2 + 2)  # extension: back and forth; division: of two polynomials
    factors = 1 + 2 * (1 + 1)
    sums = (1 + 5) + 2 * 2 * (1 + 5) + 2 * (1 + 5)  # extension, key, conversion back
    assert rotation.narrow + rotation.wide == 1024 * (3 * 5 * transforms + 3 * factors + sums)
    rows = 2 + 2 + 2 * 1 * 2 + 2 * 2 * 2  # in, out, key, roots in pairs both ways
    assert rotation.size_bytes == 8 * 1024 * rows


@pytest.mark.parametrize("instructions", list(InstructionSet))
def test_larger_operations_are_more_work(instructions: InstructionSet) -> None:
    works = workloads(make_shape(instructions=instructions), 8, 8)
    seconds = {name: work.compute_seconds(MACHINE, instructions) for name, work in works.items()}
    assert seconds["rescale"] < seconds["hoisted rotation"] < seconds["rotate"]
    assert seconds["rotate"] < seconds["multiply"] < seconds["bsgs 64x64"]


def test_the_memory_is_the_smallest_that_holds_all() -> None:
    sizes = (1e5, 1e7, 1e9)
    assert [Work(size_bytes=size).memory_seconds(MACHINE) for size in sizes] == [
        size / bandwidth for size, bandwidth in zip(sizes, (8e9, 4e9, 1e9), strict=True)
    ]


def test_ratios_are_taken_round_by_round_and_carry_their_goal() -> None:
    measured = records_of(found([3.0, 8.0, 30.0], [1.0, 2.0, 5.0]), "2^13", 1, MACHINE)
    (ratio,) = [m for m in measured if m.metric == "ratio"]
    assert (ratio.value, ratio.samples) == (4.0, [3.0, 4.0, 6.0])
    assert ratio.parameters["goal"] == 3.0
    by_name = {m.metric: m.value for m in measured if m.subject == "tacit"}
    limit = max(by_name["compute_seconds"], by_name["memory_seconds"])
    assert by_name["roofline_fraction"] == limit / 2.0


def test_every_goal_has_a_workload() -> None:
    names = [f"ntt {setting.suffix}" for setting in TRANSFORMS]
    operations = workloads(make_shape(), 8, 8)
    names += [f"{name} {setting.suffix}" for setting in OPERATIONS for name in operations]
    goals = {name: goal_of(name) for name in names}
    assert sum(goal is not None for goal in goals.values()) == 4 * 5
    assert (goals["ntt 2^15 50-bit"], goals["ntt 2^15 60-bit"]) == (4.0, 1.5)
    assert goals["rescale 2^13"] is None


def test_the_summary_says_what_was_missed_and_the_plot_shows_it(tmp_path: Path) -> None:
    records = [
        m.at(AROUND)
        for threads, ours in ((1, 1.0), (2, 4.0))
        for m in records_of(found([6.0], [ours]), "2^13", threads, MACHINE)
    ]
    output = io.StringIO()
    show_summary(Console(file=output, width=120), records)
    assert "1 of 2 goals met" in output.getvalue()
    assert "MISSED" in output.getvalue()
    draw_ratios(records, tmp_path / "plot.png")
    assert matplotlib.image.imread(tmp_path / "plot.png").std() > 0.01


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_the_machine_is_measured() -> None:
    machine = measure_machine(1)
    assert all(1e7 < rate < 1e13 for rate in machine.figures().values())
    assert "integer" in machine.multiplications
