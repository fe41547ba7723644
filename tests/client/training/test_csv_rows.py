"""Tables in CSV files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tacit.client.training.csv_rows import read_table
from tacit.errors import TacitError, TrainingRowsError, UserError


def written(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text)
    return path


def test_a_header_names_columns_and_gaps_are_missing(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "age,sugar,ill\n50,?,yes\n61,7.5,no\n\n44,NA,no\n"))
    rows, names = table.without("ill")
    assert names == ("age", "sugar")
    np.testing.assert_array_equal(rows, [[50.0, np.nan], [61.0, 7.5], [44.0, np.nan]])
    assert list(table.column("ill", numbers=False)) == ["yes", "no", "no"]


def test_without_a_header_columns_have_numbers(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "1,2.5,0\n3,,1\n"))
    rows, names = table.without("2")
    assert names == ("0", "1")
    np.testing.assert_array_equal(rows, [[1.0, 2.5], [3.0, np.nan]])
    labels = table.column("2", numbers=False)
    assert labels.dtype == np.int64
    assert list(labels) == [0, 1]


def test_rows_to_be_predicted_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "b,ill,a\n1,yes,2\n"))
    np.testing.assert_array_equal(table.rows(("a", "b"), 2), [[2.0, 1.0]])
    with pytest.raises(UserError, match="expected: a, c"):
        table.rows(("a", "c"), 2)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", TrainingRowsError, "is empty"),
        ("a,b\n", TrainingRowsError, "no rows"),
        ("a,a\n1,2\n", TrainingRowsError, "same name"),
        ("a,b\n1,2\n3\n", TrainingRowsError, "line 3: 1 cells, expected 2"),
    ],
)
def test_files_that_are_no_tables_are_refused(
    text: str, error: type[TacitError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        read_table(written(tmp_path, text))


def test_words_among_numbers_are_named(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b,ill\n1,2,0\n3,often,1\n"))
    with pytest.raises(TrainingRowsError, match="row 2, column 'b': not a number"):
        table.without("ill")
    with pytest.raises(UserError, match="no column 'sick': the file has a, b, ill"):
        table.without("sick")
    holes = read_table(written(tmp_path, "a,ill\n1,0\n3,\n"))
    with pytest.raises(TrainingRowsError, match="'ill' is missing in row 2"):
        holes.column("ill", numbers=False)


def test_a_file_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_table(tmp_path / "nothing.csv")
