"""What the README shows runs as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tacit.client.cli import main
from tacit.runtime.server import ServerHandle

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def shown_commands() -> list[list[str]]:
    lines = re.findall(r"^    tacit (.*)$", README, flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def shown_program() -> str:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    return str(program)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sklearn = pytest.importorskip("sklearn.linear_model", reason="extra `demo` not installed")
    skl2onnx = pytest.importorskip("skl2onnx", reason="extra `demo` not installed")
    patients = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    model = sklearn.LinearRegression().fit(patients, patients @ np.arange(5) + 1)
    exported = skl2onnx.to_onnx(model, patients[:1])
    (tmp_path / "heart.onnx").write_bytes(exported.SerializeToString())
    np.save(tmp_path / "patients.npy", patients)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    return tmp_path


def test_the_commands_and_the_program_of_the_readme_work(folder: Path) -> None:
    for command in shown_commands():
        if command[0] != "serve":
            assert main(command) == 0, command
    simulated = np.load("answers.npy")
    with ServerHandle(folder / "models") as handle:
        program = shown_program().replace("localhost:8000", f"127.0.0.1:{handle.ports.http}")
        names: dict[str, object] = {}
        exec(program, names)
    risk = names["risk"]
    assert isinstance(risk, np.ndarray)
    np.testing.assert_allclose(risk, simulated, atol=2.0**-15 * np.ptp(simulated))
    assert (folder / "heart.html").stat().st_size > 10_000


def test_every_file_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
