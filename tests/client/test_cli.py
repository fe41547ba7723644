"""The command line, in process; the server it talks to is a process of its own."""

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import tacit
from tacit.client import cli
from tacit.client.cli import build_parser, main
from tacit.client.cli_common import bytes_text, milliseconds_text, progress_on_stderr
from tacit.client.cli_serve import server_options
from tacit.errors import ArtifactError, InternalError, UserError
from tests.client.served import BOUND, ROWS, clear_answer, squared_model


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _parsers(below)


def _examples() -> list[str]:
    epilogs = [(p.epilog or "").replace("\\\n", "") for p in _parsers(build_parser())]
    lines = {line.strip() for epilog in epilogs for line in epilog.splitlines()}
    return sorted(line for line in lines if line.startswith("tacit ") and "COMMAND" not in line)


@pytest.mark.parametrize(
    "words",
    [parser.prog.split()[1:] for parser in _parsers(build_parser())],
    ids=" ".join,
)
def test_every_command_explains_itself_with_examples(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0
    assert "examples:" in shown
    assert f"tacit {' '.join(words)}".strip() in shown


def test_there_are_examples_for_every_command() -> None:
    commands = {parser.prog.split()[1] for parser in _parsers(build_parser()) if " " in parser.prog}
    assert {line.split()[1] for line in _examples()} == commands
    assert {"compile", "inspect", "simulate", "serve", "keys", "predict", "train"} < commands


@pytest.mark.parametrize("line", _examples())
def test_every_example_parses(line: str) -> None:
    options = build_parser().parse_args(shlex.split(line.split("|")[0])[1:])
    assert callable(options.run)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"tacit {tacit.__version__}\n"


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (UserError("x"), 2),
            (ArtifactError("x"), 3),
            (InternalError("x"), 4),
            (ValueError("x"), 4),
            (KeyboardInterrupt(), 130),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_the_branch_of_an_error_decides_the_exit_code(
        self,
        error: BaseException,
        code: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr("tacit.client.cli_demo.check_openfhe", fail)
        assert main(["doctor"]) == code
        shown = capsys.readouterr()
        assert shown.err.startswith("tacit: ")
        assert shown.err.count("\n") == 1
        assert "Traceback" not in shown.err
        assert shown.out == ""

    def test_debug_shows_the_traceback(self) -> None:
        with pytest.raises(UserError):
            main(["compile", "missing.onnx", "--out", "nowhere", "--debug"])

    @pytest.mark.parametrize(
        ("words", "code", "message"),
        [
            ("compile missing.onnx --out o", 2, "missing.onnx: no such file"),
            ("inspect nothing", 3, "nothing holds no compiled model"),
            ("simulate nothing --inputs x.npy --out y.npy", 3, "holds no compiled model"),
            ("serve nothing", 3, "nothing is not a directory"),
            ("keys show ab --key-dir k", 2, "0 key pairs in k begin with 'ab'"),
            ("keys make --key-dir k", 2, "say which model"),
            ("keys make --from nothing --key-dir k", 3, "holds no compiled model"),
            ("keys list --passphrase-file p", 2, "cannot read the passphrase file p"),
            ("predict http://h x --inputs x.npy --out y.npy", 2, "cannot read x.npy: No such file"),
            ("demo --csv missing", 2, "cannot read missing"),
        ],
    )
    def test_mistakes_get_one_line(
        self,
        words: str,
        code: int,
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert main([*shlex.split(words), "--quiet"]) == code
        shown = capsys.readouterr().err
        assert shown.startswith("tacit: error: ")
        assert message in shown
        assert shown.count("\n") == 1

    def test_files_that_are_not_numbers_are_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for content in (b"", b"PK\x03\x04 no zip", b"some text"):
            (tmp_path / "x.npy").write_bytes(content)
            words = ["predict", "http://127.0.0.1:9", "m", "--key-dir", str(tmp_path)]
            words += ["--inputs", str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]
            assert main([*words, "--quiet"]) == 2
            assert "is not an .npy or .npz file" in capsys.readouterr().err

    def test_an_unknown_option_is_a_users_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as left:
            main(["doctor", "--frobnicate"])
        assert left.value.code == 2
        assert "--frobnicate" in capsys.readouterr().err


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model compiled by the command line, with real parameters."""
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(squared_model(), folder / "squared.onnx")
    np.save(folder / "rows.npy", ROWS)
    out = folder / "models" / "square" / "1"
    words = ["compile", str(folder / "squared.onnx"), "--out", str(out), "--name", "square"]
    assert main([*words, "--calibrate", str(folder / "rows.npy"), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def url(artifact: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "tacit.client.cli", "serve", str(artifact.parents[1])]
    command += ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ready = re.match(
                r"ready: http (\S+), grpc \S+, metrics \S+\n", server.stdout.readline()
            )
            assert ready is not None
            yield f"http://{ready[1]}"
        finally:
            server.terminate()
            assert server.wait(120) == 0


class TestTheWholePath:
    def test_inspect_prints_circuit_levels_precision_and_cost(
        self, artifact: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["inspect", str(artifact)]) == 0
        shown = capsys.readouterr().out
        for part in ("model       square, version 1", "128-bit", "bits", "ms predicted", "%0:"):
            assert part in shown

    def test_inspect_prints_json(self, artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["inspect", str(artifact), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["model"]["name"] == "square"
        assert facts["plans"]["latency"]["seconds"] > 0

    def test_inspect_writes_a_page_that_needs_nothing_else(
        self, artifact: Path, tmp_path: Path
    ) -> None:
        page = tmp_path / "report.html"
        np.save(tmp_path / "x.npy", ROWS)
        words = ["inspect", str(artifact), "--html", str(page), "--quiet"]
        assert main([*words, "--inputs", str(tmp_path / "x.npy")]) == 0
        text = page.read_text()
        images = re.findall(r'src="([^"]{0,30})', text)
        assert len(images) == 7
        assert all(image.startswith("data:image/png;base64,iVBORw0KGgo"[:30]) for image in images)
        assert "http" not in text
        assert "<script" not in text

    def test_simulate_equals_the_clear_model(self, artifact: Path, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", ROWS)
        for extra in ([], ["--noise"], ["--plan", "batch"]):
            words = ["simulate", str(artifact), "--inputs", str(tmp_path / "x.npy")]
            assert main([*words, "--out", str(tmp_path / "y.npy"), *extra]) == 0
            found, expected = np.load(tmp_path / "y.npy"), clear_answer(ROWS)
            assert np.abs(found - expected).max() < BOUND * np.abs(expected).max()

    def test_predict_equals_the_clear_model(
        self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.save(tmp_path / "x.npy", ROWS[:5])
        files = ["--inputs", str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]
        keys = ["--key-dir", str(tmp_path / "keys")]
        for plan in ("latency", "batch"):
            words = ["predict", url, "square", *files, *keys, "--plan", plan, "--json"]
            assert main(words) == 0
            assert json.loads(capsys.readouterr().out)["plan"] == plan
            found = np.load(tmp_path / "y.npy")
            assert np.abs(found - clear_answer(ROWS[:5])).max() < BOUND

    def test_keys_are_made_listed_shown_uploaded_and_deleted(
        self, url: str, artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def run(*words: str) -> str:
            assert main(["keys", *words, "--key-dir", str(tmp_path), "--quiet"]) == 0
            return capsys.readouterr().out

        phrase = tmp_path / "phrase"
        phrase.write_text("open sesame\n")
        guard = ("--passphrase-file", str(phrase))
        made = run("make", "--from", str(artifact), "--ttl-days", "30", *guard)
        key = re.match(r"key ([0-9a-f]{16}) made for 'square'", made)
        assert key is not None
        (listed,) = json.loads(run("list", "--json"))
        assert listed["key_id"].startswith(key[1])
        assert listed["passphrase"]
        assert listed["ttl_days"] == 30
        assert listed["key_bytes"] < listed["full_key_bytes"]
        assert bytes_text(listed["key_bytes"]) in made
        assert f"untrimmed {bytes_text(listed['full_key_bytes'])}" in made
        assert "passphrase" in run("list")
        assert "128-bit classical" in run("show", key[1])
        assert "uploaded" in run("upload", url, "square", *guard)
        assert "already there" in run("upload", url, "square", *guard)
        assert main(["keys", "upload", url, "square", "--key-dir", str(tmp_path)]) == 2
        assert "protected by a passphrase" in capsys.readouterr().err
        shown = run("delete", key[1], "--server", url)
        assert f"deleted at {url}" in shown
        assert run("list") == f"no keys in {tmp_path}\n"

    def test_keys_are_made_from_a_server(
        self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["keys", "make", url, "square", "--key-dir", str(tmp_path)]) == 0
        assert "made for 'square'" in capsys.readouterr().out
        (secret,) = tmp_path.glob("*/secret.key")
        assert secret.stat().st_mode & 0o777 == 0o600

    def test_unknown_names_at_the_server_are_users_errors(
        self, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        np.save(tmp_path / "x.npy", ROWS[:1])
        words = ["--inputs", str(tmp_path / "x.npy"), "--out", str(tmp_path / "y.npy")]
        words += ["--key-dir", str(tmp_path / "keys"), "--quiet"]
        assert main(["predict", url, "nothing", *words]) == 2
        assert main(["predict", url, "square", *words, "--output", "z"]) == 2
        shown = capsys.readouterr().err
        assert "nothing" in shown
        assert "no output 'z': the model answers with ['y']" in shown


def test_an_unsupported_model_lists_every_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = squared_model()
    model.graph.node[1].op_type = "Sin"
    del model.graph.node[1].input[1]
    onnx.save(model, tmp_path / "m.onnx")
    assert main(["compile", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "o")]) == 2
    shown = capsys.readouterr().err
    assert "1 unsupported node(s)" in shown
    assert "Sin" in shown


def test_serve_options_reach_the_server() -> None:
    words = "serve m --key-quota-gb 2 --key-ttl-hours 1 --workers 6 --parallel 5"
    words += " --request-timeout 30 --key-dir k --audit-file a --token-file t"
    words += " --training-dir j --party-dir p"
    options = server_options(build_parser().parse_args(words.split()))
    assert options.keys.tenant_bytes == 2_000_000_000
    assert options.keys.seconds_to_live == 3600
    assert options.workers.processes == 6
    assert options.queue.parallel == 5
    assert options.requests.seconds == 30
    assert (options.training_directory, options.party_directory) == (Path("j"), Path("p"))
    assert (options.key_directory, options.audit_file, options.token_file) == (
        Path("k"),
        Path("a"),
        Path("t"),
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (3.1e6, "3.1 MB"), (5e9, "5.00 GB")],
)
def test_byte_counts_are_readable(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_durations_are_readable() -> None:
    assert [milliseconds_text(ms) for ms in (0.26, 999, 1500)] == ["0.3 ms", "999.0 ms", "1.50 s"]


def test_progress_that_is_not_on_a_terminal_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on_stderr(quiet=False) as progress:
        for done in range(3):
            progress("keys", done, 2)
    assert capsys.readouterr().err.strip() == ""


def test_the_command_is_installed() -> None:
    assert cli.main is main
    result = subprocess.run(
        [sys.executable, "-m", "tacit.client.cli", "doctor"], capture_output=True, text=True
    )
    assert result.returncode == 0
    assert result.stdout.count("ok ") == 4
