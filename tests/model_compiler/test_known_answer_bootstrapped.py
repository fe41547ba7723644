"""Known answers of networks whose activations are bootstraps: rows where they fit, else probes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tacit import packing, wire
from tacit.artifact import Artifact, load
from tacit.circuit import execute
from tacit.client.codec import Codec
from tacit.client.keys import KeyPair
from tacit.errors import AnswerError, ArtifactError, DamagedInputError, InputRangeError
from tacit.kernels.build import build_if_stale
from tacit.known_answer import check_known_answer, check_probe
from tacit.model_compiler import CompileOptions, compile_model
from tacit.model_compiler.report import summary_lines
from tacit.params import CryptoParams, SecretDistribution, Security
from tacit.runtime.backends.clear import ClearEvaluator
from tacit.runtime.backends.loading import BackendName
from tacit.runtime.key_rules import key_expectation
from tacit.runtime.session import Session
from tacit.runtime.simulate import simulate
from tacit.signature import Plan, Signature
from tests.model_compiler.onnx_models import build, reference

Floats = NDArray[np.float64]
TEXT = "H = Mul(X, C)\nT = Relu(H)\nY = MatMul(T, V)"
# Garbage hits the tolerance of one output by chance, of this many never.
OUTPUTS = 16
# 256 slots: rows of 40 fit several times, one of 200 fills them.
PARAMS = CryptoParams.choose(
    9, 20, 40, 41, 3, Security.UNCHECKED_INSECURE, SecretDistribution.SPARSE_ENCAPSULATED
)
FITTING, FILLING = 40, 200
SPOILED = (AnswerError, DamagedInputError)


def weights(size: int) -> dict[str, Floats]:
    generator = np.random.default_rng(size)
    spread = generator.normal(size=(size, OUTPUTS)) / np.sqrt(size)
    return {"C": generator.uniform(0.5, 1.0, size), "V": spread}


def rows(size: int, count: int = 100) -> Floats:
    return np.random.default_rng(1).uniform(-1.0, 1.0, size=(count, size))


def compiled(size: int, folder: Path, constants: dict[str, Floats] | None = None) -> Artifact:
    options = CompileOptions(
        name="m", calibration=rows(size), params=PARAMS, bootstrap="always", known_answer=True,
        plans=("latency",), accuracy=0.02,
    )  # fmt: skip
    compile_model(build(TEXT, {"X": (size,)}, constants or weights(size)), folder, options=options)
    return load(folder)


@dataclass(frozen=True)
class Served:
    """A compiled network, a customer's keys for it, and what the server was sent of them."""

    artifact: Artifact
    plan: Plan
    codec: Codec
    keys: list[bytes]

    @property
    def asked(self) -> Floats:
        """One evaluation: rows with the reserved one, or a probe."""
        if self.plan.known_answer is None:
            probe = packing.known_vectors(self.plan)
            assert probe is not None
            return probe
        signature = self.artifact.signature
        some = rows(FITTING, self.plan.batch)
        return packing.pack(self.plan, packing.core_inputs(signature, {"X": some}))

    def answered(
        self,
        vectors: Floats,
        *,
        artifact: Artifact | None = None,
        keys: list[bytes] | None = None,
        harm: Callable[[bytes], bytes] = lambda frame: frame,
    ) -> Floats:
        """Encrypt, evaluate, decrypt; the server may have other circuits, keys or ciphertexts."""
        session = Session.open(
            artifact or self.artifact, keys or self.keys, backend=BackendName.NATIVE
        )
        (frames,) = self.codec.encrypt(self.plan, vectors)
        answer = session.run(self.plan.name, [harm(frame) for frame in frames])
        return self.codec.decrypt(self.plan, [[bytes(frame) for frame in answer.frames]])

    def check(self, slots: Floats) -> None:
        if self.plan.known_answer is not None:
            check_known_answer(PARAMS, self.plan, slots)
        else:
            check_probe(PARAMS, self.plan, slots)


@pytest.fixture(scope="module", params=[FITTING, FILLING], ids=["row", "probe"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Served:
    if not build_if_stale():
        pytest.skip("no compiled kernels and no C++ compiler")
    folder = tmp_path_factory.mktemp("known")
    artifact = compiled(request.param, folder / "m")
    pair = KeyPair.for_model(artifact.signature, folder / "keys", allow_insecure=True)
    frames = [pair.folder.file(entry).read_bytes() for entry in pair.facts.frames]
    plan = artifact.signature.plan("latency")
    return Served(artifact, plan, Codec(artifact.signature, pair), frames)


def test_where_a_row_fits_it_is_reserved_and_elsewhere_there_is_a_probe(served: Served) -> None:
    plan = served.plan
    assert plan.bootstraps
    text = "\n".join(summary_lines(served.artifact))
    if plan.inputs[0].layout.size == FITTING:
        assert plan.probe is None
        assert plan.known_answer is not None
        assert plan.batch == plan.inputs[0].layout.batch - 1 >= 1
        assert "known       latency: checked to" in text
    else:
        assert plan.known_answer is None
        assert plan.probe is not None
        assert plan.batch == plan.inputs[0].layout.batch == 1
        assert "in an evaluation of its own" in text


def test_honest_answers_pass(served: Served) -> None:
    slots = served.answered(served.asked)
    served.check(slots)
    if served.plan.known_answer is not None:
        some = rows(FITTING, served.plan.batch)
        outputs = packing.unpack(served.plan, slots, len(some))
        got = packing.model_outputs(served.artifact.signature, outputs)["Y"]
        (expected,) = reference(build(TEXT, {"X": (FITTING,)}, weights(FITTING)), {"X": some})
        assert np.abs(got - expected).max() < 0.2 * np.ptp(expected)


def test_other_weights_are_told(served: Served, tmp_path: Path) -> None:
    size = served.plan.inputs[0].layout.size
    constants = weights(size)
    constants["V"] = -constants["V"]
    other = compiled(size, tmp_path, constants)
    assert other.signature.key_config == served.artifact.signature.key_config
    with pytest.raises(AnswerError):
        served.check(served.answered(served.asked, artifact=other))


@pytest.mark.parametrize(
    "purpose",
    [wire.KeyKind.ROTATION, pytest.param(wire.KeyKind.RELINEARIZATION, marks=pytest.mark.slow)],
)
def test_one_wrong_residue_of_an_evaluation_key_is_told(
    served: Served, purpose: wire.KeyKind
) -> None:
    signature = served.artifact.signature
    keys = [wire.decode_evaluation_key(f, key_expectation(signature)) for f in served.keys]
    # The one of most limbs: it is used after the modulus is raised.
    alike = [place for place, key in enumerate(keys) if key.kind is purpose]
    place = max(alike, key=lambda place: keys[place].limbs.shape[2])
    limbs = keys[place].limbs.copy()
    limbs[0, 0, 0, 3] = (limbs[0, 0, 0, 3] + (1 << 20)) % PARAMS.moduli[0]
    wrong = replace(keys[place], limbs=limbs)
    frame = wire.encode_evaluation_key(
        wrong,
        PARAMS.moduli,
        PARAMS.special_moduli,
        limbs=limbs.shape[2] - len(PARAMS.special_moduli),
    )
    damaged = [*served.keys[:place], frame, *served.keys[place + 1 :]]
    with pytest.raises(SPOILED):
        served.check(served.answered(served.asked, keys=damaged))


def test_keys_of_another_owner_are_told(served: Served, tmp_path: Path) -> None:
    other = KeyPair.for_model(served.artifact.signature, tmp_path, allow_insecure=True)
    keys = [other.folder.file(entry).read_bytes() for entry in other.facts.frames]
    with pytest.raises(SPOILED):
        served.check(served.answered(served.asked, keys=keys))


def test_one_wrong_residue_of_a_ciphertext_is_told(served: Served) -> None:
    (spec,) = served.plan.inputs

    def harm(frame: bytes) -> bytes:
        read = wire.decode_ciphertext(frame, served.codec._expectation(spec))
        limbs = read.limbs.copy()
        limbs[0, 1, 17] = (limbs[0, 1, 17] + (1 << 20)) % PARAMS.moduli[1]
        return wire.encode_ciphertext(replace(read, limbs=limbs), PARAMS.moduli)

    with pytest.raises(SPOILED):
        served.check(served.answered(served.asked, harm=harm))


def test_what_a_bootstrap_wraps_in_another_row_is_not_told_but_refused_before(
    tmp_path: Path,
) -> None:
    """The limit that the documentation states, and what stands before it."""
    artifact = compiled(FITTING, tmp_path)
    plan = artifact.signature.plan("latency")
    some = rows(FITTING, 1)
    right = simulate(artifact, some).outputs["Y"]
    far = np.where(np.arange(FITTING) == 3, 9.0, some)
    with pytest.raises(InputRangeError, match="outside the calibrated range"):
        packing.pack(plan, packing.core_inputs(artifact.signature, {"X": far}))
    layout = plan.inputs[0].layout
    vectors = packing.pack(plan, packing.core_inputs(artifact.signature, {"X": some}))
    vectors.reshape(-1, layout.batch)[layout.cells[0][3], 0] = 9.0  # a customer who does not look
    clear = ClearEvaluator(PARAMS)
    inputs = [clear.encrypt(vector, plan.inputs[0].level) for vector in vectors[0]]
    answers = execute(artifact.circuits["latency"], inputs, clear)
    slots = np.stack([answer.values for answer in answers])[None]
    check_known_answer(PARAMS, plan, slots)  # passes
    wrapped = packing.model_outputs(artifact.signature, packing.unpack(plan, slots, 1))["Y"]
    model = build(TEXT, {"X": (FITTING,)}, weights(FITTING))
    (expected,) = reference(model, {"X": far})
    assert np.abs(wrapped - expected).max() > 0.2 * np.ptp(expected)
    assert np.abs(right - reference(model, {"X": some})[0]).max() < 0.2 * np.ptp(expected)


def test_a_damaged_probe_is_refused(tmp_path: Path) -> None:
    signature = compiled(FILLING, tmp_path).signature
    fields = json.loads(json.dumps(signature.to_json()))
    assert Signature.from_json(fields).digest == signature.digest
    probe = fields["plans"][0]["probe"]
    for damage, value in (("inputs", {"Z": [0.0]}), ("outputs", {}), ("tolerance", 2.0)):
        fields["plans"][0]["probe"] = probe | {damage: value}
        with pytest.raises(ArtifactError):
            Signature.from_json(fields)
