from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench import __main__ as command
from bench.__main__ import QUESTIONS, main
from bench.question import Answer, Options
from bench.report import show
from bench.rounds import Outcome
from bench.worker import Ready, Round
from tests.bench.test_records import make_record
from tests.bench.test_rounds import make_task


def printed() -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=200), output


def test_without_a_question_they_are_listed() -> None:
    console, output = printed()
    assert main([], console) == 0
    for name in ("logreg", "mlp", "heart", "predicted"):
        assert name in output.getvalue()


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "python -m bench logreg --quick" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logreg", "--peers", "seal"], "unknown peer seal"),
        (["logreg", "--rounds", "0"], "at least one round"),
        (["speed"], "invalid choice"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_expected(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_heart_without_its_files_is_skipped_visibly() -> None:
    console, output = printed()
    assert main(["heart"], console) == 0
    assert "heart skipped: give --heart DIR" in output.getvalue()


def test_results_go_to_the_named_file_with_a_plot_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = Answer([make_record()], ["one row: orion: out of memory"])
    question = command.Question("logreg", "", lambda *_: answer, QUESTIONS["logreg"].draw)
    monkeypatch.setitem(command.QUESTIONS, "logreg", question)
    console, output = printed()
    path = tmp_path / "results.jsonl"
    assert main(["logreg", "--json", str(path)], console) == 1
    assert json.loads(path.read_text())["value"] == 0.25
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "FAILED one row: orion: out of memory" in output.getvalue()


def test_peers_none_leaves_tacit_and_the_clear_model() -> None:
    assert Options(peers=()).subjects(["tenseal", "tenseal:logits"]) == ["tacit", "onnxruntime"]


def test_a_wanted_peer_takes_part_with_its_variants() -> None:
    chosen = Options(peers=("tenseal",)).subjects(["tenseal", "tenseal:logits", "orion"])
    assert chosen == ["tacit", "tenseal", "tenseal:logits", "onnxruntime"]


def test_quick_means_few_rounds_unless_they_are_given() -> None:
    assert Options(quick=True).pace(15).rounds == 3
    assert Options(quick=True, rounds=7).pace(15).rounds == 7


def test_the_table_has_a_row_for_skipped_and_failed_subjects() -> None:
    task = make_task("one row")
    rounds = [Round(0.2, 0.01, task.expected(i).tolist()) for i in range(2)]
    outcomes = [
        Outcome("tacit", ready=Ready({}, 1, 1.0, 2_000_000), rounds=rounds),
        Outcome("orion", skipped="no Python 3.11"),
        Outcome("tenseal", failed="the worker died"),
    ]
    console, output = printed()
    show(console, task, outcomes)
    text = output.getvalue()
    assert "200.0 ms" in text
    assert "2 MB" in text
    assert "orion skipped: no Python 3.11" in text
    assert "tenseal FAILED: the worker died" in text
