from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench import operations
from bench.operations import Setting, rows_of, write_cost_table
from bench.record import Record
from tacit.model_compiler.op_times import OPERATIONS, Ring, Work, fit
from tacit.moduli import digit_limbs
from tests.bench.test_records import make_record

PRICES = Work(0.02, 2e-6, 3e-6, 2.5e-6, 1.5e-6, 1e-6, 2e-6)


def made_records() -> list[Record]:
    """Return records of a machine with known prices."""
    records = []
    for setting in operations.SETTINGS:
        params = setting.params()
        limbs, specials = len(params.moduli), len(params.special_moduli)
        place = {"log_n": setting.log_n, "limbs": limbs, "specials": specials}
        for level in setting.levels:
            ring = Ring(setting.log_n, digit_limbs(limbs, setting.dnum), specials, level + 1)
            for name in OPERATIONS:
                record = replace(
                    make_record(),
                    metric=f"{name}_seconds",
                    value=ring.operation(name).at(PRICES) / 1e3,
                    parameters={**place, "dnum": setting.dnum, "level": level},
                )
                records.append(record)
    return records


def test_the_written_table_gives_back_the_machine_s_prices(tmp_path: Path) -> None:
    path = tmp_path / "op_times.json"
    write_cost_table(made_records(), path)
    table = json.loads(path.read_text())
    assert table["hardware"] == make_record().hardware
    found = fit(table["rows"])
    assert found.transforms == pytest.approx(PRICES.transforms, rel=0.05)
    assert found.traffic == pytest.approx(PRICES.traffic, rel=0.1)


def test_a_row_holds_all_operations_of_one_level() -> None:
    rows = rows_of(made_records())
    assert len(rows) == sum(len(setting.levels) for setting in operations.SETTINGS)
    assert all(set(OPERATIONS) <= set(row) for row in rows)


def test_every_operation_is_measured_on_the_backend() -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    samples = operations._measure(Setting(10, 1, 2, (0, 1)), rounds=2)
    assert set(samples[1]) == set(OPERATIONS)
    assert set(OPERATIONS) - set(samples[0]) == {
        "multiply_plain",
        "multiply_scalar",
        "multiply",
        "rescale",
        "weighted_term",
    }
    assert all(len(seconds) == 2 for by_name in samples.values() for seconds in by_name.values())
