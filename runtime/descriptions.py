"""What the endpoint says about itself and its models: KServe metadata, configuration, index."""

from __future__ import annotations

import json

from tacit import __version__
from tacit.runtime.endpoint import ciphertexts_of, outputs_of
from tacit.runtime.repository import ModelVersion, Repository
from tacit.runtime.requests import TENSOR
from tacit.signature import Plan

PLATFORM = "tacit"
SIGNATURE = "tacit_signature"
EXTENSIONS = ("binary_tensor_data", "statistics", "model_repository", "model_configuration")


def server_metadata() -> dict[str, object]:
    """Describe the server."""
    return {"name": "tacit", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(repository: Repository, model: ModelVersion) -> dict[str, object]:
    """Describe a model; `parameters` carries the public half clients need."""
    plans = model.signature.plans
    return {
        "name": model.name,
        "versions": repository.versions(model.name),
        "platform": PLATFORM,
        "inputs": [_tensor({ciphertexts_of(plan) for plan in plans})],
        "outputs": [_tensor({outputs_of(plan) for plan in plans})],
        "parameters": {SIGNATURE: model.signature.to_json()},
    }


def model_config(model: ModelVersion, largest_batch: int) -> dict[str, object]:
    """Return a model configuration in Triton's form; parameters are texts, as there."""
    plans = model.signature.plans
    parameters = {
        SIGNATURE: json.dumps(model.signature.to_json(), sort_keys=True),
        "tacit_key_config": model.signature.key_config,
        "tacit_plans": json.dumps([_plan_summary(plan) for plan in plans]),
    }
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": largest_batch,
        "input": [_config_tensor({ciphertexts_of(plan) for plan in plans})],
        "output": [_config_tensor({outputs_of(plan) for plan in plans})],
        "parameters": {name: {"string_value": text} for name, text in parameters.items()},
    }


def _tensor(counts: set[int]) -> dict[str, object]:
    return {"name": TENSOR, "datatype": "BYTES", "shape": [-1, _extent(counts)]}


def _config_tensor(counts: set[int]) -> dict[str, object]:
    return {"name": TENSOR, "data_type": "TYPE_STRING", "dims": [_extent(counts)]}


def _extent(counts: set[int]) -> int:
    """-1 where plans differ, as KServe says of extents that vary."""
    return counts.pop() if len(counts) == 1 else -1


def _plan_summary(plan: Plan) -> dict[str, object]:
    return {
        "name": plan.name,
        "batch": plan.batch,
        "inputs": ciphertexts_of(plan),
        "outputs": outputs_of(plan),
        "seconds": plan.seconds,
    }
