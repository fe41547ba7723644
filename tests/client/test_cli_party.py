"""`tacit party`: two parties at the command line, from invitation to decryption."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tacit.client.cli import main
from tests.client.parties import PARAMS, relay

COLUMNS = "age,0,120\npressure,50,250\n"


def command(*words: object) -> int:
    return main(["party", *(str(word) for word in words)])


def both(*acts: tuple[object, ...]) -> list[int]:
    """Run one command of each party at the same time."""
    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(lambda act: command(*act), acts))


def test_two_parties_at_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = tmp_path / "columns.csv"
    columns.write_text(COLUMNS)
    berne, basle = tmp_path / "berne", tmp_path / "basle"
    rest = ("--allow-insecure", "--wait", 120)
    with relay(tmp_path / "models") as url:
        # Not smudged by 30 bits: the tiny scale has no room for them.
        made = command(
            *("create", url, "arithmetic", "--parties", "berne", "basle", "--columns", columns),
            *("--most-rows", 100, "--smudging-bits", 6, "--precision-bits", 8),
            *("--folder", berne, "--allow-insecure"),
        )
        assert made == 0
        invited = tmp_path / "basle.invitation"
        assert invited.stat().st_mode & 0o077 == 0
        swapped = tmp_path / "swapped.csv"
        swapped.write_text("pressure,50,250\nage,0,120\n")
        joining = ("join", invited, "--folder", basle, "--allow-insecure", "--columns")
        assert command(*joining, swapped) == 2
        assert "another order" in capsys.readouterr().err
        assert command(*joining, columns) == 0
        assert both(
            ("keygen", "--folder", berne, "--upload", *rest), ("keygen", "--folder", basle, *rest)
        ) == [0, 0]
        printed = capsys.readouterr().out
        assert printed.count("fingerprint") == 2
        assert "of evaluation keys uploaded" in printed
        for name, ages in (("berne", [30.0, 50.0]), ("basle", [70.0, np.nan, 10.0])):
            rows = np.stack([ages, np.full(len(ages), 120.0)], axis=1)
            np.save(tmp_path / f"{name}.npy", rows)
        assert both(
            *(
                (
                    "moments",
                    "--folder",
                    tmp_path / name,
                    "--rows",
                    tmp_path / f"{name}.npy",
                    "--out",
                    tmp_path / f"{name}.json",
                    *rest,
                )
                for name in ("berne", "basle")
            )
        ) == [0, 0]
        found = json.loads((tmp_path / "basle.json").read_text())
        assert (found["rows"], found["counts"]) == (5, [4, 5])
        assert found["means"] == pytest.approx([40.0, 120.0], abs=1e-6)
        slots, frames = tmp_path / "slots.npy", tmp_path / "x.frames"
        values = np.random.default_rng(2).uniform(-1, 1, (1, PARAMS.slots))
        np.save(slots, values)
        encrypting = ("encrypt", "--folder", basle, "--slots", slots, "--level", 1)
        assert command(*encrypting, "--out", frames, "--allow-insecure") == 0
        purpose = ("--purpose", "a test")
        asking = ("--frames", frames, "--level", 1, "--noise-bits", 14)
        out = [tmp_path / f"{name}.slots.npy" for name in ("berne", "basle")]
        assert both(
            ("decrypt", "x", "--folder", berne, *asking, *purpose, "--out", out[0], *rest),
            ("decrypt", "x", "--folder", basle, *purpose, "--out", out[1], *rest),
        ) == [0, 0]
        for path in out:
            assert np.abs(np.load(path) - values).max() < 2.0**-8
        assert command("status", "--folder", basle, "--allow-insecure") == 0
        assert "x.share: complete" in capsys.readouterr().out
    # The server is gone: the transcript is still there.
    assert command("verify", "--folder", basle, "--allow-insecure") == 0
    assert "are signed, chained and as committed to" in capsys.readouterr().out
    assert command("status", "--folder", basle, "--allow-insecure") == 2
    assert "cannot reach" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["create", "join", "keygen", "moments", "train", "encrypt", "decrypt", "status", "verify"],
)
def test_every_command_explains_itself_with_examples(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command(name, "--help")
    assert exit_.value.code == 0
    assert f"examples:\n  tacit party {name}" in capsys.readouterr().out


def test_what_is_no_invitation_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.invitation"
    path.write_text('{"url": 1}')
    assert command("join", path, "--folder", tmp_path / "x") == 2
    assert "is not an invitation" in capsys.readouterr().err
    assert command("status", "--folder", tmp_path / "nowhere") == 2
    assert "no party's folder" in capsys.readouterr().err
