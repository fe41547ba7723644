"""Whole circuits as workloads: compiled models from artifacts, and a bootstrap.

Every client of a batch has keys of its own. Residues of keys and ciphertexts are random: time does
not depend on them, so no secret and no OpenFHE are needed where this runs.

    python -m bench.gpu.circuits FOLDER     compiles the models here; needs onnx
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from bench.gpu.sizes import UNCHECKED, Sizes
from bench.gpu.workloads import Run, Workload, random_key, random_limbs
from tacit import artifact
from tacit.bootstrap import Bootstrap
from tacit.bootstrap_levels import bootstrap_depth
from tacit.circuit import Circuit, LinearPlan, LinearTerm, Node, Op, ValueType, execute
from tacit.fourier import fit_series
from tacit.kernels.automorphism import rotation_element
from tacit.kernels.cuda.limb_kernels import CudaKernels
from tacit.kernels.cuda.memory import DeviceArray
from tacit.kernels.limb_kernels import LimbArray, LimbKernels
from tacit.moduli import encapsulation_moduli
from tacit.params import CryptoParams, SecretDistribution
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_ciphertext import NativeCiphertext
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import NativeKeys

ENCAPSULATED = SecretDistribution.SPARSE_ENCAPSULATED
CACHE_BYTES = 24 << 30
HARMONICS = 15
MODELS = {"logistic regression": (30, ()), "mlp": (784, (64,))}  # inputs, hidden layers
CLIENTS = (1, 4, 16, 64)


def main() -> None:
    """Compile the models into the folder that the command line names."""
    (folder,) = sys.argv[1:]
    make_models(Path(folder))


def make_models(folder: Path) -> None:
    """Compile every model, with random weights, for its latency plan's parameters."""
    for name, (inputs, hidden) in MODELS.items():
        _compile(inputs, hidden, folder / name.replace(" ", "-"))


def circuit_workloads(sizes: Sizes, folder: Path | None) -> Iterator[Workload]:
    """Yield the bootstrap, the models of a folder, and the clients that share a batch of each."""
    params, circuit = bootstrap_circuit(sizes)
    yield workload(f"bootstrap, 2^{params.log_n - 1} slots", params, circuit, 1)
    for name, (params, circuit) in found_models(sizes, folder).items():
        for clients in CLIENTS if sizes.real else (1, 3):
            yield workload(f"{name}, {clients} clients", params, circuit, clients)


def found_models(sizes: Sizes, folder: Path | None) -> dict[str, tuple[CryptoParams, Circuit]]:
    """Return circuits by name: of all artifacts in a folder, or a small one for a rehearsal."""
    if folder is None:
        return {} if sizes.real else {"a small model": small_model()}
    made = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir()):
        model = artifact.load(path)
        made[path.name] = (model.signature.params, model.circuits["latency"])
    return made


def workload(name: str, params: CryptoParams, circuit: Circuit, clients: int) -> Workload:
    """Return a circuit as a workload on CUDA kernels."""

    def prepare(cuda: CudaKernels) -> tuple[Run, list[DeviceArray]]:
        run, inputs = evaluation(cast(LimbKernels, cuda), params, circuit, clients)
        return cast(Run, run), cast("list[DeviceArray]", inputs)

    return Workload(name, params, clients, prepare)


def evaluation(
    kernels: LimbKernels, params: CryptoParams, circuit: Circuit, clients: int
) -> tuple[Callable[[Sequence[LimbArray]], list[LimbArray]], list[LimbArray]]:
    """Return a function from input limbs to output limbs, for a batch of clients, and inputs."""
    engine = NativeEngine(params, kernels, cache_bytes=CACHE_BYTES)
    engine.prepare(circuit)
    owners = [_random_keys(engine, circuit, index) for index in range(clients)]
    evaluator = NativeEvaluator(owners)
    names = tuple(owner.key_id for owner in owners)
    types = [circuit.types[value] for value in circuit.inputs]
    inputs = [kernels.upload(random_limbs(params, 2, at.level + 1, clients)) for at in types]

    def run(arrays: Sequence[LimbArray]) -> list[LimbArray]:
        wrapped = [
            NativeCiphertext(kernels, a, at.level, at.degree, names)
            for a, at in zip(arrays, types, strict=True)
        ]
        return [output.limbs for output in execute(circuit, wrapped, evaluator)]

    return run, inputs


def bootstrap_circuit(sizes: Sizes) -> tuple[CryptoParams, Circuit]:
    """Return the bootstrap of all slots that leaves three levels."""
    log_n, log_scale = (16, 50) if sizes.real else (7, 45)
    plan = Bootstrap("series", 3, log_n - 1)
    shallow = CryptoParams.choose(log_n, 1, log_scale, log_scale + 1, 1, UNCHECKED, ENCAPSULATED)
    depth = 3 + bootstrap_depth(shallow, plan, HARMONICS)
    params = CryptoParams.choose(log_n, depth, log_scale, log_scale + 1, 4, UNCHECKED, ENCAPSULATED)
    constants: dict[str, Any] = {"series": fit_series(lambda x: x, HARMONICS, cutoff=1e-8)}
    types = (ValueType(plan.to_coefficients), ValueType(3))
    node = Node(Op.BOOTSTRAP, (0,), (1,), plan)
    return params, Circuit(params.slots, (0,), (1,), (node,), types, constants)


def small_model() -> tuple[CryptoParams, Circuit]:
    """Return a linear map and a square on a tiny ring."""
    params = CryptoParams.choose(7, 3, 40, 50, 2, UNCHECKED)
    rng = np.random.default_rng(1)
    terms = tuple(LinearTerm(0, 0, 4 * (i // 4), i % 4, i) for i in range(8))
    nodes = (
        Node(Op.LINEAR, (0,), (1,), LinearPlan(1, terms, "rows", "")),
        Node(Op.MULTIPLY, (1, 1), (2,)),
        Node(Op.RESCALE, (2,), (3,)),
    )
    types = (ValueType(3), ValueType(2), ValueType(2, 2), ValueType(1))
    constants = {"rows": rng.uniform(-1, 1, (8, params.slots))}
    return params, Circuit(params.slots, (0,), (3,), nodes, types, constants)


def _random_keys(engine: NativeEngine, circuit: Circuit, index: int) -> NativeKeys:
    params, kernels = engine.params, engine.kernels
    words = random_key(params)
    elements = {rotation_element(params.log_n, steps) for steps in circuit.rotations}
    sparse = back = None
    if circuit.bootstraps:
        elements.add(2 * params.n - 1)
        if params.secret is ENCAPSULATED:
            sparse = kernels.upload_sparse_key(_random_sparse_key(params))
            back = kernels.upload_key(words)
    return NativeKeys(
        engine,
        index.to_bytes(32, "little"),
        kernels.upload_key(words),
        {element: kernels.upload_key(words) for element in sorted(elements)},
        sparse,
        back,
    )


def _random_sparse_key(params: CryptoParams) -> NDArray[np.uint64]:
    moduli = (params.moduli[0], *encapsulation_moduli(params.log_n, params.moduli))
    draws = np.random.default_rng(5).integers(0, 1 << 62, (2, 1, 3, params.n), dtype=np.uint64)
    return draws % np.array(moduli, dtype=np.uint64)[:, None]


def _compile(inputs: int, hidden: Sequence[int], target: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from tacit.model_compiler import CompileOptions, compile_model

    rng = np.random.default_rng(inputs)
    widths = [inputs, *hidden, 10 if hidden else 1]
    nodes, tensors, last = [], [], "x"
    for layer, (wide, narrow) in enumerate(pairwise(widths)):
        weights = rng.normal(0.0, wide**-0.5, (wide, narrow)).astype(np.float32)
        tensors.append(numpy_helper.from_array(weights, f"w{layer}"))
        tensors.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{layer}"))
        nodes.append(helper.make_node("Gemm", [last, f"w{layer}", f"b{layer}"], [f"y{layer}"]))
        last = f"y{layer}"
        if layer < len(hidden):
            nodes.append(helper.make_node("Sigmoid", [last], [f"z{layer}"]))
            last = f"z{layer}"
    shape = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])]
    made = [helper.make_tensor_value_info(last, TensorProto.FLOAT, ["rows", widths[-1]])]
    graph = helper.make_graph(nodes, "model", shape, made, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    rows = rng.uniform(-1.0, 1.0, (64, inputs)).astype(np.float32)
    compile_model(model, target, options=CompileOptions(calibration=rows, plans=("latency",)))


if __name__ == "__main__":
    main()
