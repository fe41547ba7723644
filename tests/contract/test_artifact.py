import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tacit.artifact import Artifact, load, load_public, save
from tacit.circuit import (
    Chebyshev,
    Circuit,
    Constant,
    LinearPlan,
    LinearTerm,
    Node,
    Op,
    Steps,
    ToLevel,
    ValueType,
    WeightedSumPlan,
)
from tacit.circuit_json import circuit_from_json, circuit_to_json
from tacit.clear_steps import ClearStep
from tacit.errors import ArtifactError, InputRangeError, InputShapeError, TacitError
from tacit.layout import Layout
from tacit.packing import core_inputs, model_outputs, pack, unpack
from tacit.params import CryptoParams, Security
from tacit.signature import Plan, Signature, TensorSpec

PARAMS = CryptoParams.choose(10, 2, 40, 50, 1, security=Security.UNCHECKED_INSECURE)
SECRET_WEIGHT = 0.73190462137

CIRCUIT = Circuit(
    slots=512,
    inputs=(0, 1),
    outputs=(9,),
    nodes=(
        Node(
            Op.LINEAR,
            (0, 1),
            (2, 3),
            LinearPlan(2, (LinearTerm(0, 0, 4, 1, 0), LinearTerm(1, 1, 0, 0, 1)), "d", "b", (8,)),
            "dense",
        ),
        Node(Op.WEIGHTED_SUM, (2, 3), (4,), WeightedSumPlan(1, "w", "")),
        Node(Op.ROTATE, (4,), (5,), Steps(3)),
        Node(Op.ADD_PLAIN, (5,), (6,), Constant("c")),
        Node(Op.NEGATE, (6,), (7,)),
        Node(Op.CHEBYSHEV, (7,), (8,), Chebyshev("p")),
        Node(Op.DROP, (8,), (9,), ToLevel(0)),
    ),
    types=tuple(ValueType(2, 1) for _ in range(10)),
    constants={
        "d": np.full((2, 4), SECRET_WEIGHT),
        "b": np.zeros((2, 4)),
        "w": np.ones((1, 2)),
        "c": np.asarray(0.25),
        "p": np.array([0.0, 1.0]),
    },
)


def signature() -> Signature:
    zero, low, high = np.asarray(0.0), np.asarray(-2.0), np.asarray(2.0)
    three = Layout(512, 4, 1, np.array([[0, 1, 2]]))
    two = Layout(512, 4, 1, np.array([[5, 7]]))
    scales = np.array([2.0, 2.0, 4.0])
    features = TensorSpec("x", (3,), three, scales, zero, low, high, level=2)
    logits = TensorSpec("y", (2,), two, np.asarray(8.0), zero, low, high, level=0)
    plan = Plan("latency", 4, (features,), (logits,), (4, 32), True, 0.1, 17.5)
    return Signature(
        "heart",
        "1",
        PARAMS,
        (plan,),
        {"x": (3,)},
        ("p",),
        prologue=(),
        epilogue=(ClearStep("sigmoid", ("y",), ("p",)),),
    )


@pytest.fixture
def artifact() -> Artifact:
    return Artifact(signature(), {"latency": CIRCUIT}, {"depth": 2})


def test_every_attribute_survives_json() -> None:
    again = circuit_from_json(json.loads(json.dumps(circuit_to_json(CIRCUIT))), CIRCUIT.constants)
    assert again.nodes == CIRCUIT.nodes
    assert again.types == CIRCUIT.types
    assert (again.inputs, again.outputs, again.slots) == ((0, 1), (9,), 512)


def test_a_saved_artifact_loads_unchanged(artifact: Artifact, tmp_path: Path) -> None:
    saved = save(artifact, tmp_path)
    loaded = load(tmp_path)
    assert loaded.signature.to_json() == saved.signature.to_json()
    assert loaded.signature.digest == load_public(tmp_path).digest
    assert loaded.circuits["latency"].nodes == CIRCUIT.nodes
    for name, values in CIRCUIT.constants.items():
        np.testing.assert_array_equal(loaded.circuits["latency"].constants[name], values)
    assert loaded.report == {"depth": 2}


def test_the_public_half_holds_no_weight(artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path)
    public = b"".join(p.read_bytes() for p in tmp_path.iterdir() if p.is_file())
    private = b"".join(p.read_bytes() for p in (tmp_path / "private").iterdir())
    weight = np.float64(SECRET_WEIGHT).tobytes()
    assert weight in private
    assert weight not in public
    assert str(SECRET_WEIGHT).encode()[:8] not in public


@pytest.mark.parametrize(
    "name", ["public.json", "private/circuits.json", "private/constants.npz", "private/report.json"]
)
def test_a_changed_or_missing_file_is_noticed(
    artifact: Artifact, tmp_path: Path, name: str
) -> None:
    save(artifact, tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="checksum"):
        load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        load(tmp_path)


def test_a_mixture_of_two_versions_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    save(artifact, tmp_path / "one")
    other = replace(artifact, report={"depth": 3})
    save(other, tmp_path / "two")
    mixed = tmp_path / "two"
    (mixed / "public.json").write_bytes((tmp_path / "one" / "public.json").read_bytes())
    manifest = json.loads((mixed / "manifest.json").read_bytes())
    first = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    manifest["files"]["public.json"] = first["files"]["public.json"]
    (mixed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="another version"):
        load(mixed)


def test_an_unknown_format_version_says_to_compile_again(
    artifact: Artifact, tmp_path: Path
) -> None:
    save(artifact, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(ArtifactError, match="compile the model again"):
        load(tmp_path)


def test_a_folder_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds no compiled model"):
        load_public(tmp_path)


LEGAL: dict[str, tuple[object, ...]] = {"model": ("x",), "model_inputs": ({},), "notes": ({},)}
LEGAL |= {"model_outputs": ([],), "epilogue": ([],)}
WRONG = [
    (field, broken)
    for field in ("model", "params", "plans", "model_inputs", "model_outputs", "epilogue", "notes")
    for broken in (None, 3, "x", [], {}, [None], {"a": 1})
    if broken not in LEGAL.get(field, ())
]


@pytest.mark.parametrize(("field", "broken"), WRONG)
def test_a_damaged_signature_is_a_typed_error(field: str, broken: object) -> None:
    fields = json.loads(json.dumps(signature().to_json()))
    with pytest.raises(TacitError):
        Signature.from_json({**fields, field: broken})


def test_rows_come_back_through_pack_and_unpack() -> None:
    sig = signature()
    rows = np.random.default_rng(0).uniform(-1, 1, size=(6, 3))
    stored = pack(sig.plans[0], core_inputs(sig, {"x": rows}))
    assert stored.shape == (2, 1, 512)
    assert np.abs(stored).max() <= 1
    np.testing.assert_allclose(stored[0, 0].reshape(128, 4)[2, :4], rows[:4, 2] / 4)
    answers = np.zeros((2, 1, 128, 4))
    answers[:, :, [5, 7]] = np.arange(16).reshape(2, 1, 2, 4) / 16
    outputs = unpack(sig.plans[0], answers.reshape(2, 1, 512), rows=6)
    np.testing.assert_allclose(outputs["y"][:, 0], 8 * np.array([0, 1, 2, 3, 8, 9]) / 16)
    probability = np.asarray(model_outputs(sig, outputs)["p"], dtype=np.float64)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-outputs["y"])))


def test_values_outside_the_calibrated_range_are_refused_with_their_place() -> None:
    sig = signature()
    rows = np.zeros((3, 3))
    rows[2, 1] = 2.5
    with pytest.raises(InputRangeError, match="row 2, element 1"):
        pack(sig.plans[0], {"x": rows})
    clipped = pack(sig.plans[0], {"x": rows}, clip=True)
    assert np.abs(clipped).max() == 1


def test_values_that_are_not_finite_are_refused_even_with_clipping() -> None:
    with pytest.raises(InputRangeError, match="not finite"):
        pack(signature().plans[0], {"x": np.full((1, 3), np.nan)}, clip=True)


def test_a_wrong_shape_names_the_expected_one() -> None:
    with pytest.raises(InputShapeError, match=r"expected shape \(rows, 3\)"):
        core_inputs(signature(), {"x": np.zeros((2, 4))})
    with pytest.raises(InputShapeError, match="missing"):
        core_inputs(signature(), {"z": np.zeros((2, 4))})


def test_the_plan_with_the_smallest_predicted_time_is_taken() -> None:
    latency = signature().plans[0]
    batch = replace(latency, name="batch", batch=512, seconds=2.0)
    both = replace(signature(), plans=(latency, batch))
    assert both.plan_for(4).name == "latency"
    assert both.plan_for(72).name == "latency"
    assert both.plan_for(512).name == "batch"


def test_many_ciphertexts_for_one_row_count_against_a_plan() -> None:
    latency = signature().plans[0]
    (features,) = latency.inputs
    wide = replace(features, layout=Layout(512, 512, 30, np.arange(30)[None]))
    batch = replace(latency, name="batch", batch=512, seconds=0.09, inputs=(wide,))
    both = replace(signature(), plans=(latency, batch))
    assert both.request_bytes(batch) == 30 * 2 * 3 * 1024 * 8 + 2 * 1024 * 8
    assert both.plan_for(1).name == "latency"
    assert both.plan_for(512).name == "batch"
