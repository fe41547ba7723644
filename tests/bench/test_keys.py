"""Sizes of evaluation keys: what is promised, and that the account is one of real frames."""

from __future__ import annotations

from pathlib import Path

from bench.keys import Keys, bootstrapped_network, draw, training
from tacit.client.keys import KeyPair
from tacit.evaluation_keys import keys_at
from tacit.key_levels import KeyLevels
from tacit.params import CryptoParams, Security
from tests.bench.test_records import make_record


def test_the_keys_of_a_training_can_be_uploaded(tmp_path: Path) -> None:
    for degree in (3, 5):
        figures = training(degree, tmp_path).figures
        assert figures["key_bytes"] <= 500e6
        assert figures["key_bytes"] < figures["full_key_bytes"]


def test_the_keys_of_a_residual_network_fit() -> None:
    figures = bootstrapped_network(15, 3, 31, 34).figures
    assert figures["key_bytes"] <= 3e9
    assert figures["key_bytes"] < figures["full_key_bytes"] / 2
    assert figures["stored_bytes"] < figures["full_stored_bytes"] / 2


def test_the_account_is_that_of_frames(tmp_path: Path) -> None:
    params = CryptoParams.choose(10, 3, 40, 50, 2, Security.UNCHECKED_INSECURE)
    levels = KeyLevels({1: 0, 2: 2}, 3)
    made = KeyPair.generate(
        params, (1, 2), True, tmp_path, key_levels=levels, allow_insecure=True
    ).facts
    figures = Keys("small", params, keys_at(levels, params)).figures
    assert figures["keys"] == len(made.frames)
    assert figures["key_bytes"] == made.key_bytes
    assert figures["full_key_bytes"] == made.full_key_bytes


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    metrics = ("key_bytes", "full_key_bytes")
    draw([make_record(metric=metric, value=1e6) for metric in metrics], tmp_path / "keys.png")
    assert (tmp_path / "keys.png").stat().st_size > 1000
