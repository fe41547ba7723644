"""The client checks the row with a known answer of every evaluation, and sends probes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.cli import main
from tacit.client.client import Client
from tacit.client.codec import Codec
from tacit.errors import OverflowedAnswerError, UserError, WrongAnswerError
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.server import ServerHandle
from tacit.signature import Plan
from tests.client.served import BOUND, ROWS, TINY_INSECURE, clear_answer, squared_model
from tests.model_compiler.onnx_models import build

Floats = NDArray[np.float64]


def test_a_spoiled_answer_is_refused_and_an_honest_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CompileOptions(
        name="checked", calibration=ROWS, params=TINY_INSECURE, known_answer=True
    )
    compile_model(squared_model(), tmp_path / "models" / "checked" / "1", options=options)
    with (
        ServerHandle(tmp_path / "models") as server,
        Client(
            f"http://127.0.0.1:{server.ports.http}", key_dir=tmp_path / "keys", allow_insecure=True
        ) as client,
    ):
        plan = client.signature("checked").plan("latency")
        assert plan.known_answer is not None
        rows = ROWS[: plan.batch + 2]  # two evaluations
        got = client.predict("checked", rows, plan="latency")
        assert np.abs(got - clear_answer(rows)).max() < BOUND
        honest = Codec.decrypt
        for added, error in ((0.01, WrongAnswerError), (100.0, OverflowedAnswerError)):

            def spoiled(
                codec: Codec, plan: Plan, frames: list[list[bytes]], added: float = added
            ) -> Floats:
                slots = honest(codec, plan, frames)
                slots[-1] += added  # of the last evaluation
                return slots

            monkeypatch.setattr(Codec, "decrypt", spoiled)
            with pytest.raises(error):
                client.predict("checked", rows, plan="latency")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerHandle]:
    """A server of a model whose rows fill their ciphertext, compiled with and without a probe."""
    size = TINY_INSECURE.slots
    model = build(
        "H = Mul(X, C)\nY = Mul(H, H)", {"X": (size,)}, {"C": np.linspace(0.5, 1.0, size)}
    )
    root = tmp_path_factory.mktemp("models")
    for name, known in (("checked", True), ("plain", False)):
        options = CompileOptions(
            name=name, params=TINY_INSECURE, plans=("latency",), known_answer=known
        )
        compile_model(model, root / name / "1", options=options)
    with ServerHandle(root) as server:
        yield server


def asking(server: ServerHandle, folder: Path, **options: Any) -> Client:
    url = f"http://127.0.0.1:{server.ports.http}"
    return Client(url, key_dir=folder, allow_insecure=True, **options)


def test_probes_go_along_as_often_as_asked_and_never_come_back(
    filled: ServerHandle, tmp_path: Path
) -> None:
    size = TINY_INSECURE.slots
    rows = np.random.default_rng(0).uniform(-1.0, 1.0, size=(3, size))
    with asking(filled, tmp_path, probe_every=2) as client:
        evaluations = []
        for _ in range(3):
            got = client.predict("checked", rows)
            assert np.abs(got - (rows * np.linspace(0.5, 1.0, size)) ** 2).max() < BOUND
            evaluations.append(client.last_timings.evaluations)
        assert evaluations == [4, 3, 4]
        assert client.check("checked") < 2.0**-16
        with pytest.raises(UserError, match="compiled with --known-answer"):
            client.check("plain")
        with pytest.raises(UserError, match="without probes"):
            client.predict("plain", rows)
    with pytest.raises(UserError, match="probe_every=-1"):
        asking(filled, tmp_path, probe_every=-1)


def test_a_probe_tells_lasting_faults_and_only_when_it_is_sent(
    filled: ServerHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((1, TINY_INSECURE.slots))
    honest = Codec.decrypt
    for added, error in ((0.01, WrongAnswerError), (100.0, OverflowedAnswerError)):

        def spoiled(
            codec: Codec, plan: Plan, frames: list[list[bytes]], added: float = added
        ) -> Floats:
            return honest(codec, plan, frames) + added

        monkeypatch.setattr(Codec, "decrypt", spoiled)
        with asking(filled, tmp_path) as client:
            client.predict("checked", rows)  # nothing is known of this answer
            with pytest.raises(error):
                client.check("checked")
        with asking(filled, tmp_path, probe_every=1) as client, pytest.raises(error):
            client.predict("checked", rows)


def test_the_command_line_sends_a_probe(filled: ServerHandle, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((1, TINY_INSECURE.slots)))
    url = f"http://127.0.0.1:{filled.ports.http}"
    words = ["--inputs", str(tmp_path / "rows.npy"), "--out", str(tmp_path / "o.npy")]
    common = ["--key-dir", str(tmp_path), "--allow-insecure", "--quiet", "--probe"]
    assert main(["predict", url, "checked", *words, *common]) == 0
    assert main(["predict", url, "plain", *words, *common]) == 2
