"""Both backends under one key pair that can bootstrap."""

from __future__ import annotations

from collections.abc import Sequence

import openfhe

from tacit.bootstrap import Bootstrap
from tacit.evaluation_keys import needed_keys
from tacit.openfhe_context import Template, template_from_context
from tacit.openfhe_keys import (
    ForeignKey,
    read_automorphism_keys,
    read_relinearization_key,
    read_sparse_keys,
)
from tacit.params import CryptoParams
from tacit.runtime.backends.native import NativeEvaluator
from tacit.runtime.backends.native_engine import NativeEngine
from tacit.runtime.backends.native_keys import load_keys
from tacit.runtime.backends.openfhe import OpenFHEEvaluator
from tacit.runtime.backends.openfhe_parameters import make_context
from tacit.runtime.backends.openfhe_raising import SparseSwitch
from tacit.wire import EvaluationKey, KeyKind
from tests.conformance.exchange import KEY_ID, Exchange


def make_bootstrap_exchange(
    params: CryptoParams,
    plan: Bootstrap,
    rotations: Sequence[int] = (),
    *,
    engine: NativeEngine | None = None,
    key_id: bytes = KEY_ID,
) -> Exchange:
    """Make keys with OpenFHE: those it bootstraps with itself, and those the native engine needs.

    OpenFHE's parameters must allow its own bootstrap: a first modulus one bit above the scale.

    Args:
        params: the parameters.
        plan: the bootstrap.
        rotations: further steps that the native engine gets keys for.
        engine: by default a new one.
        key_id: names the key set.
    """
    context = make_context(params)
    keys = context.KeyGen()
    context.EvalMultKeyGen(keys.secretKey)
    tag = keys.publicKey.GetKeyTag()
    steps = {*plan.rotations(params.slots), *rotations}
    purposes = needed_keys(params, sorted(steps), True, True)
    elements = [want.element for want in purposes if want.kind is KeyKind.ROTATION]
    context.EvalAutomorphismKeyGen(keys.secretKey, elements)
    moved, _ = read_automorphism_keys(
        openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
    )
    stages = [plan.to_slots, plan.to_coefficients]
    context.EvalFEFuncBootstrapSetup(stages, [0, 0], 1 << plan.log_slots)
    context.EvalBootstrapKeyGen(keys.secretKey, 1 << plan.log_slots)
    archive = openfhe.SerializeEvalAutomorphismKeyString(openfhe.BINARY, tag)
    relinearization, _ = read_relinearization_key(
        openfhe.SerializeEvalMultKeyString(openfhe.BINARY, tag)
    )
    made: list[EvaluationKey] = []
    for want in purposes:
        match want.kind:
            case KeyKind.RELINEARIZATION:
                key: ForeignKey = relinearization
            case KeyKind.ROTATION:
                key = moved[want.element]
            case KeyKind.TO_SPARSE:
                key = read_sparse_keys(archive).to_sparse
            case KeyKind.FROM_SPARSE:
                key = read_sparse_keys(archive).from_sparse
        made.append(EvaluationKey(key.limbs, want.kind, want.element, params.digest))
    loaded = load_keys(engine or NativeEngine(params), key_id, made)
    template = template_from_context(openfhe.Serialize(context, openfhe.BINARY))
    evaluator = OpenFHEEvaluator(
        params, context, sparse=_sparse_switch(params, template, tag, made)
    )
    return Exchange(params, context, keys, template, evaluator, NativeEvaluator(loaded), loaded)


def _sparse_switch(
    params: CryptoParams, template: Template, tag: str, keys: Sequence[EvaluationKey]
) -> SparseSwitch | None:
    found = {key.kind: key.limbs for key in keys}
    if KeyKind.TO_SPARSE not in found:
        return None
    there, back = found[KeyKind.TO_SPARSE], found[KeyKind.FROM_SPARSE]
    return SparseSwitch.of(params, template, tag, there, back)
