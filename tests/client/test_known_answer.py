"""The client checks the row with a known answer of every evaluation."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit.client.client import Client
from tacit.client.codec import Codec
from tacit.errors import OverflowedAnswerError, WrongAnswerError
from tacit.model_compiler import CompileOptions, compile_model
from tacit.runtime.server import ServerHandle
from tacit.signature import Plan
from tests.client.served import BOUND, ROWS, TINY_INSECURE, clear_answer, squared_model

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
