from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest

from bench.plots import _bars_of, draw_auc, draw_comparison, draw_predictions, draw_training
from bench.record import Record
from tests.bench.test_records import make_record

COMPARISON = [
    make_record(),
    make_record(subject="tenseal", value=2.0),
    make_record(metric="error", value=1e-5),
    make_record(subject="tenseal", metric="error", value=0.0),
    make_record(workload="batch 128", value=0.5),
]
PREDICTIONS = [
    make_record(question="predicted", workload=w, metric=m, value=v)
    for w, m, v in (
        ("a", "server_seconds", 0.1),
        ("a", "predicted_seconds", 0.12),
        ("b", "server_seconds", 2.0),
        ("b", "predicted_seconds", 1.5),
    )
]
AUC = [
    make_record(question="heart", workload="network, va", metric=m, value=0.8)
    for m in ("auc_clear", "auc_encrypted")
]
TRAINING = [
    make_record(question="training", workload="heart", metric="auc_loss_vs_sklearn_by_fold"),
    *(
        make_record(question="training", workload=f"scaling, rows {n}", metric=m, value=1e-3 * n)
        for n in (780, 2000, 16000)
        for m in ("fit_seconds", "server_seconds")
    ),
]


@pytest.mark.parametrize(
    ("draw", "records"),
    [
        (draw_comparison, COMPARISON),
        (draw_predictions, PREDICTIONS),
        (draw_auc, AUC),
        (draw_training, TRAINING),
    ],
)
def test_each_plot_is_a_picture_with_something_in_it(
    draw: object, records: list[Record], tmp_path: Path
) -> None:
    path = tmp_path / "plot.png"
    assert callable(draw)
    draw(records, path)
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 100
    assert picture.std() > 0.01


def test_variants_have_bars_of_their_own() -> None:
    records = [
        make_record(value=0.5),
        make_record(subject="tenseal", metric="logits_server_seconds", value=0.1),
        make_record(subject="tenseal", metric="session_seconds", value=9.0),
    ]
    bars = _bars_of(records, "one row", "server_seconds")
    assert list(bars.items()) == [("tenseal logits", 0.1), ("tacit", 0.5)]


def test_without_predictions_nothing_is_drawn(tmp_path: Path) -> None:
    draw_predictions(COMPARISON, tmp_path / "plot.png")
    draw_auc(COMPARISON, tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()
