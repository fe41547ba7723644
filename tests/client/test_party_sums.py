"""Joint standardisation: pooled moments, as numpy computes them, and nobody's own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.party import Party
from tacit.client.party_moments import PooledMoments, local_sums
from tacit.errors import InputRangeError, InputShapeError, SchemaMismatchError, WrongShareError
from tacit.logistic import Preparation
from tests.client.parties import PATIENCE, failures, parties, relay, terms, together

Floats = NDArray[np.float64]
RANDOM = np.random.default_rng(9)


def table(rows: int) -> Floats:
    """Age, pressure with missing values, and a constant column."""
    age = RANDOM.uniform(20, 100, rows)
    pressure = np.clip(RANDOM.normal(130, 20, rows), 50, 250)
    pressure[::5] = np.nan
    return np.stack([age, pressure, np.full(rows, 3.0)], axis=1)


TABLES = [table(40), table(25), table(60)]
POOLED = np.concatenate(TABLES)
# Sums keep more than 30 bits of their largest value.
CLOSE = 1e-5


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Party]]:
    # At the squared scale 2^100 the usual 30 bits of smudging leave more than 30 bits.
    agreed = terms(
        40, rotations=(), relinearization=False, smudging_bits=30, least_smudging_bits=30
    )
    root = tmp_path_factory.mktemp("sums")
    with relay(root / "models") as url, parties(url, root, agreed) as joined:
        together(joined, lambda party: party.keygen(seconds=PATIENCE))
        yield joined


@pytest.fixture(scope="module")
def moments(members: list[Party]) -> list[PooledMoments]:
    return together(
        members, lambda party: party.moments(TABLES[party.session.party], seconds=PATIENCE)
    )


def test_pooled_moments_are_those_of_the_union(moments: list[PooledMoments]) -> None:
    for found in moments:
        assert found.rows == len(POOLED)
        assert found.counts.tolist() == (~np.isnan(POOLED)).sum(axis=0).tolist()
        assert np.abs(found.means - np.nanmean(POOLED, axis=0)).max() < CLOSE
        assert np.abs(found.deviations - np.nanstd(POOLED, axis=0)).max() < 1e-3
        assert found.deviations[2] == 0.0


def test_all_parties_prepare_rows_alike_and_as_for_the_union(
    members: list[Party], moments: list[PooledMoments]
) -> None:
    curvatures = together(
        members,
        lambda party: party.curvature(
            moments[party.session.party], TABLES[party.session.party], seconds=PATIENCE
        ),
    )
    filled = np.where(np.isnan(POOLED), np.nanmean(POOLED, axis=0), POOLED)
    # The deviation of what is there, not of what is filled in, is what the parties scale by.
    mean, deviation = np.nanmean(POOLED, axis=0), np.nanstd(POOLED, axis=0)
    scaled = np.where(deviation > 0, (filled - mean) / np.where(deviation > 0, deviation, 1), 0)
    rows = np.concatenate([np.ones((len(filled), 1)), np.clip(scaled, -4, 4)], axis=1)
    wanted = 0.25 * np.linalg.eigvalsh(rows.T @ rows / len(rows)).max()
    assert np.abs(np.array(curvatures) - wanted).max() < 1e-4
    prepared = [found.preparation() for found in moments]
    alone = Preparation.of(filled[:, :1], 512)
    assert abs(prepared[0].mean[0] - alone.mean[0]) < CLOSE
    for other in prepared[1:]:
        assert np.abs(other.extended(filled) - prepared[0].extended(filled)).max() < CLOSE


def test_one_partys_numbers_alone_are_never_decrypted(members: list[Party]) -> None:
    """Every share is of the total; and each party's own sums differ from it."""
    session = members[0].session
    digests = set(session.folder.read_json("decrypted.json").values())
    assert digests <= {"moments.total", "curvature.total"}
    own = local_sums(session.terms, TABLES[0])
    total = sum(local_sums(session.terms, t) for t in TABLES)
    assert np.abs(own - total).max() > 0.01


def test_values_outside_the_agreed_ranges_are_named_by_column(members: list[Party]) -> None:
    wrong = TABLES[0].copy()
    wrong[3, 0] = 121.0
    with pytest.raises(InputRangeError, match=r"column 'age' .* \[0, 120\]") as caught:
        members[0].moments(wrong, name="wrong")
    assert "121" not in str(caught.value)
    with pytest.raises(SchemaMismatchError, match="3 columns"):
        members[0].moments(TABLES[0][:, :2], name="wrong")
    with pytest.raises(InputShapeError, match="1 to 1000 rows"):
        members[0].moments(np.zeros((1001, 3)) + 60, name="wrong")
    with pytest.raises(InputRangeError, match=r"in \[-1, 1\]"):
        members[0].sums("wrong", np.array([1.5]))


def test_parties_that_sum_up_different_things_are_named(members: list[Party]) -> None:
    lengths = [3, 3, 4]
    found = failures(
        members,
        lambda party: party.sums(
            "unequal", np.zeros(lengths[party.session.party]), seconds=PATIENCE
        ),
    )
    assert "'west' sums up 4 numbers, 3 are agreed on" in str(found[0])
    assert all(isinstance(error, WrongShareError) for error in found)
