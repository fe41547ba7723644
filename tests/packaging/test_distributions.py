"""The wheel, the sdist and the editable install hold the same package, once."""

import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("client", "kernels", "model_compiler", "runtime")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    finished = subprocess.run(build, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return out


def wheel_names(dist: Path) -> list[str]:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        return wheel.namelist()


def source_modules() -> set[str]:
    contract = {f"tacit/{p.name}" for p in (ROOT / "src" / "tacit").glob("*.py")}
    rooms = {
        f"tacit/{path.relative_to(ROOT).as_posix()}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    return contract | rooms


def test_the_wheel_built_from_the_sdist_holds_every_module_once(dist: Path) -> None:
    names = wheel_names(dist)
    modules = [name for name in names if name.endswith(".py")]
    assert set(modules) == source_modules()
    assert not [name for name, count in Counter(names).items() if count > 1]


def test_the_wheel_marks_the_package_as_typed(dist: Path) -> None:
    assert "tacit/py.typed" in wheel_names(dist)


def test_the_sdist_holds_the_sources_once_and_no_environment(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = [name.split("/", 1)[1] for name in sdist.getnames() if "/" in name]
    assert "client/__init__.py" in names
    assert not [name for name in names if name.startswith("src/tacit/client/")]
    assert not [name for name in names if ".venv" in name or "__pycache__" in name]


def test_the_wheel_imports_without_the_checkout(dist: Path, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    wheel = str(next(dist.glob("*.whl")))
    subprocess.run([*install, str(tmp_path), wheel], check=True, capture_output=True)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import tacit, tacit.client, tacit.runtime, tacit.model_compiler, tacit.kernels\n"
        "print(tacit.client.__file__)"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert run.stdout.startswith(str(tmp_path))


def test_the_editable_install_imports_the_checkout() -> None:
    if distribution("tacit").read_text("direct_url.json") is None:
        pytest.skip("tacit is not installed in this environment")
    program = "import tacit.client, os; print(os.path.realpath(tacit.client.__file__))"
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert Path(run.stdout.strip()) == ROOT / "client" / "__init__.py"
