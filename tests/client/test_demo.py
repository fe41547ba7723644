"""The demonstration's patients, and the demonstration itself over a real endpoint."""

import json
from pathlib import Path

import numpy as np
import pytest

from tacit.client.cli import main
from tacit.client.demo_patients import FEATURES, read_patients, synthetic_patients
from tacit.errors import UserError

ROW = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0"


def test_synthetic_patients_follow_the_published_statistics() -> None:
    patients = synthetic_patients(20_000, seed=1)
    columns = dict(zip(FEATURES, patients.rows.T, strict=True))
    sick = patients.diseased
    assert abs(sick.mean() - 0.46) < 0.02
    assert abs(columns["age"][~sick].mean() - 52.6) < 0.3
    assert abs(columns["age"][sick].std() - 7.9) < 0.4
    assert abs(columns["sex"][sick].mean() - 0.82) < 0.02
    assert abs((columns["cp"][sick] == 4).mean() - 0.76) < 0.02
    assert columns["thalach"][~sick].mean() > columns["thalach"][sick].mean() + 15
    assert columns["oldpeak"].min() == 0
    assert set(np.unique(columns["thal"])) == {3, 6, 7}


def test_synthetic_patients_are_the_same_for_the_same_seed() -> None:
    first, again = synthetic_patients(50, seed=3), synthetic_patients(50, seed=3)
    assert np.array_equal(first.rows, again.rows)
    assert not np.array_equal(first.rows, synthetic_patients(50, seed=4).rows)


def test_uci_files_are_read_and_gaps_take_the_median(tmp_path: Path) -> None:
    cells = ROW.split(",")
    gap, empty = ["40", *cells[1:4], "?", *cells[5:13], "3"], ["50", *cells[1:4], "", *cells[5:]]
    (tmp_path / "processed.a.data").write_text(ROW + "\n" + ",".join(gap) + "\n\n")
    (tmp_path / "processed.b.data").write_text(",".join(empty) + "\n")
    patients = read_patients(tmp_path)
    assert patients.rows.shape == (3, 13)
    assert patients.rows[:, 4].tolist() == [233, 233, 233]
    assert patients.diseased.tolist() == [False, True, False]
    assert len(read_patients(tmp_path / "processed.a.data").rows) == 2


@pytest.mark.parametrize("text", ["", "1,2,3\n", "a,b\n", ROW + "\n1,2\n"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.data").write_text(text)
    with pytest.raises(UserError, match="UCI heart-disease file"):
        read_patients(tmp_path / "x.data")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no processed\.\*\.data"):
        read_patients(tmp_path)


@pytest.mark.parametrize("with_csv", [False, True])
def test_the_demonstration_is_right_to_15_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], with_csv: bool
) -> None:
    words = ["demo", "--rows", "3", "--json", "--quiet"]
    if with_csv:
        patients = synthetic_patients(300, seed=9)
        lines = [
            ",".join([*map(str, row), str(int(sick))])
            for row, sick in zip(patients.rows, patients.diseased, strict=True)
        ]
        (tmp_path / "processed.x.data").write_text("\n".join(lines))
        words += ["--csv", str(tmp_path)]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["clear"]) == len(found["encrypted"]) == 3
    assert 0 < found["largest_error"] < 2**-15
    assert found["first"]["uploaded_bytes"] > found["second"]["uploaded_bytes"] == 0
    assert "128-bit" in found["params"]
