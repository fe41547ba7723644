from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import operations
from bench.operations import rows_of, write_cost_table
from bench.operations_worker import Setting, measure
from bench.record import Record
from tacit.model_compiler.op_times import Backend, fit, read_tables, ring_of
from tests.bench.test_records import make_record

PRICES = {
    Backend.OPENFHE: {
        "calls": 0.02,
        "transforms": 2e-6,
        "products": 3e-6,
        "plain_products": 2.5e-6,
        "scalar_products": 1.5e-6,
        "sums": 1e-6,
        "traffic": 2e-6,
    },
    Backend.NATIVE: {
        "calls": 0.03,
        "transforms_narrow": 2e-7,
        "transforms_wide": 4e-7,
        "terms_narrow": 2e-7,
        "weights_narrow": 1e-7,
        "rows_wide": 7e-7,
        "moves": 5e-7,
        "traffic": 2e-7,
    },
}
SMALL = Setting(10, 1, 40, 50, 2, (0, 1))


def made_records(backend: Backend) -> Iterator[Record]:
    """Return records of a machine with known prices."""
    for setting in operations.SETTINGS[backend]:
        for level in setting.levels:
            place = {
                "log_n": setting.log_n,
                "limbs": setting.depth + 1,
                "dnum": setting.dnum,
                "level": level,
                "log_scale": setting.log_scale,
                "log_first": setting.log_first,
            }
            ring = ring_of(place)
            for name in backend.measured:
                if level == 0 and "rescale" in backend.measured[name]:
                    continue
                yield replace(
                    make_record(),
                    metric=f"{name}_seconds",
                    value=backend.measured_work(ring, name).at(PRICES[backend]) / 1e3,
                    parameters={**place, "backend": backend.value},
                )


@pytest.mark.parametrize("backend", Backend)
def test_the_written_table_gives_back_the_machine_s_prices(
    backend: Backend, tmp_path: Path
) -> None:
    path = tmp_path / "op_times.json"
    write_cost_table(list(made_records(backend)), path)
    (table,) = read_tables(path)
    assert table.backend is backend
    assert table.facts["hardware"] == make_record().hardware
    found = fit(backend, table.rows)
    for kind, price in PRICES[backend].items():
        assert found[kind] == pytest.approx(price, rel=0.1), kind


def test_tables_of_other_backends_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "op_times.json"
    for backend in (*Backend, Backend.NATIVE):
        write_cost_table(list(made_records(backend)), path)
    assert sorted(table.backend.value for table in read_tables(path)) == ["native", "openfhe"]
    assert set(json.loads(path.read_text())) == {"tables"}


@pytest.mark.parametrize("backend", Backend)
def test_a_row_holds_all_operations_of_one_level(backend: Backend) -> None:
    rows = rows_of(list(made_records(backend)))
    assert len(rows) == sum(len(setting.levels) for setting in operations.SETTINGS[backend])
    assert all(set(backend.measured) <= set(row) for row in rows if row["level"])


def test_every_operation_is_measured_on_openfhe() -> None:
    pytest.importorskip("openfhe", reason="openfhe does not import here")
    samples = measure(Backend.OPENFHE, SMALL, rounds=2)
    assert set(samples[1]) == set(Backend.OPENFHE.measured)
    assert set(Backend.OPENFHE.measured) - set(samples[0]) == {
        "multiply_plain",
        "multiply_scalar",
        "multiply",
        "rescale",
        "weighted_term",
    }
    assert all(len(seconds) == 2 for by_name in samples.values() for seconds in by_name.values())


def test_every_operation_is_measured_on_the_native_engine() -> None:
    samples = measure(Backend.NATIVE, SMALL, rounds=2)
    assert set(samples[1]) == set(Backend.NATIVE.measured)
    assert set(samples[0]) == {"add", "add_plain", "rotate", "rotate_many_4", "encode"}
    assert all(s > 0 for by_name in samples.values() for found in by_name.values() for s in found)
