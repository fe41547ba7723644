"""The gRPC half of KServe v2: `inference.GRPCInferenceService`, on tritonclient's own messages.

Errors carry "<code>: <message>" as details and the code again in the trailing metadata `tacit-
code`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2, service_pb2

from tacit.errors import ArtifactError, UnknownModelError
from tacit.runtime import descriptions
from tacit.runtime.bodies import Memory
from tacit.runtime.endpoint import KEY_HEADER, Endpoint
from tacit.runtime.metrics import statistics
from tacit.runtime.refusals import BadRequestError
from tacit.runtime.requests import TENSOR, Frame, InferAnswer, InferRequest, Scalar
from tacit.runtime.statuses import code_of, message_of, status_of
from tacit.runtime.tenants import Tenants
from tacit.runtime.tensors import element_count, join_bytes, split_bytes
from tacit.runtime.v2_json import check_tensor, parse_parameters

_LOG = logging.getLogger("tacit.runtime.grpc")
CODE_METADATA = "tacit-code"
Answer = TypeVar("Answer")
# tritonclient ships messages without types.
Message = Any
Context = Any


@dataclass(frozen=True, slots=True)
class Service:
    """Handlers by method name; `register` attaches them to a server."""

    endpoint: Endpoint
    tenants: Tenants
    memory: Memory
    is_ready: Callable[[], bool]

    async def server_live(self, request: Message, tenant: str) -> Message:
        """Answer that the process runs."""
        return service_pb2.ServerLiveResponse(live=True)

    async def server_ready(self, request: Message, tenant: str) -> Message:
        """Answer whether requests are accepted."""
        return service_pb2.ServerReadyResponse(ready=self.is_ready())

    async def model_ready(self, request: Message, tenant: str) -> Message:
        """Answer whether a model can be asked; an unknown one is not ready."""
        try:
            self.endpoint.repository.find(request.name, request.version)
        except (UnknownModelError, ArtifactError):
            return service_pb2.ModelReadyResponse(ready=False)
        return service_pb2.ModelReadyResponse(ready=True)

    async def server_metadata(self, request: Message, tenant: str) -> Message:
        """Describe the server."""
        return _message(service_pb2.ServerMetadataResponse(), descriptions.server_metadata())

    async def model_metadata(self, request: Message, tenant: str) -> Message:
        """Describe a model; its signature is in the configuration, which can carry it."""
        repository = self.endpoint.repository
        model = repository.find(request.name, request.version)
        fields = descriptions.model_metadata(repository, model)
        del fields["parameters"]
        return _message(service_pb2.ModelMetadataResponse(), fields)

    async def model_config(self, request: Message, tenant: str) -> Message:
        """Return a model's configuration, with its signature as a parameter."""
        model = self.endpoint.repository.find(request.name, request.version)
        fields = descriptions.model_config(model, self.endpoint.limits.evaluations)
        config = _message(model_config_pb2.ModelConfig(), fields)
        return service_pb2.ModelConfigResponse(config=config)

    async def model_statistics(self, request: Message, tenant: str) -> Message:
        """Return statistics of one model, or of all."""
        repository = self.endpoint.repository
        one = [repository.find(request.name, request.version)] if request.name else None
        counts = self.endpoint.metrics.counts
        found = one or repository.loaded()
        entries = [statistics(m.name, m.version, counts(m.name, m.version)) for m in found]
        return _message(service_pb2.ModelStatisticsResponse(), {"model_stats": entries})

    async def repository_index(self, request: Message, tenant: str) -> Message:
        """List the repository."""
        response = service_pb2.RepositoryIndexResponse()
        for entry in self.endpoint.repository.index():
            if entry.state == "READY" or not request.ready:
                response.models.add(
                    name=entry.name, version=entry.version, state=entry.state, reason=entry.reason
                )
        return response

    async def repository_model_load(self, request: Message, tenant: str) -> Message:
        """Load a model again from disk."""
        await asyncio.to_thread(self.endpoint.load, tenant, request.model_name)
        return service_pb2.RepositoryModelLoadResponse()

    async def repository_model_unload(self, request: Message, tenant: str) -> Message:
        """Stop offering a model."""
        self.endpoint.unload(tenant, request.model_name)
        return service_pb2.RepositoryModelUnloadResponse()

    async def infer(self, request: Message, tenant: str, key_header: str) -> Message:
        """Answer one inference request."""
        received = request.ByteSize()
        self.memory.take(received)
        try:
            return _response(await self.endpoint.infer(_request(request, tenant, key_header)))
        finally:
            self.memory.give(received)

    def tenant_of(self, context: Context) -> str:
        """Authenticate a call.

        Raises:
            UnauthorizedError.
        """
        return self.tenants.authenticate(_metadata(context).get("authorization", ""))

    async def answer(
        self,
        handler: Callable[[Message, str], Awaitable[Answer]],
        request: Message,
        context: Context,
    ) -> Answer:
        """Run a handler; its errors become the call's status."""
        try:
            return await handler(request, self.tenant_of(context))
        except Exception as error:
            await self._abort(error, context)
            raise

    async def stream(self, requests: AsyncIterator[Message], context: Context) -> None:
        """Answer a stream in order; a failed request gets an error message, the stream goes on."""
        try:
            tenant = self.tenant_of(context)
        except Exception as error:
            await self._abort(error, context)
        key_header = _metadata(context).get(KEY_HEADER, "")
        async for request in requests:
            try:
                answer = await self.infer(request, tenant, key_header)
                response = service_pb2.ModelStreamInferResponse(infer_response=answer)
            except Exception as error:
                self._note(error)
                response = service_pb2.ModelStreamInferResponse(error_message=message_of(error))
                response.infer_response.id = request.id
            await context.write(response)

    async def _abort(self, error: Exception, context: Context) -> None:
        self._note(error)
        context.set_trailing_metadata(((CODE_METADATA, code_of(error)),))
        await context.abort(grpc.StatusCode[status_of(error).grpc], message_of(error))

    def _note(self, error: Exception) -> None:
        self.endpoint.metrics.refused(code_of(error))
        if status_of(error).http == 500:
            _LOG.error("a gRPC call failed: %s", code_of(error), exc_info=error)


def generic_handler(service: Service) -> Any:
    """Return the generic handler that serves `inference.GRPCInferenceService`."""
    unary: dict[str, Callable[[Message, str], Awaitable[Message]]] = {
        "ServerLive": service.server_live,
        "ServerReady": service.server_ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.model_metadata,
        "ModelConfig": service.model_config,
        "ModelStatistics": service.model_statistics,
        "RepositoryIndex": service.repository_index,
        "RepositoryModelLoad": service.repository_model_load,
        "RepositoryModelUnload": service.repository_model_unload,
    }
    handlers = {name: _unary(service, name, handler) for name, handler in unary.items()}
    handlers["ModelInfer"] = _infer(service)
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        service.stream,
        request_deserializer=service_pb2.ModelInferRequest.FromString,
        response_serializer=service_pb2.ModelStreamInferResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)


def _unary(
    service: Service, name: str, handler: Callable[[Message, str], Awaitable[Message]]
) -> Any:
    async def answer(request: Message, context: Context) -> Message:
        if name in ("ServerLive", "ServerReady"):
            return await handler(request, "")
        return await service.answer(handler, request, context)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=getattr(service_pb2, f"{name}Request").FromString,
        response_serializer=getattr(service_pb2, f"{name}Response").SerializeToString,
    )


def _infer(service: Service) -> Any:
    async def answer(request: Message, context: Context) -> Message:
        async def infer(message: Message, tenant: str) -> Message:
            return await service.infer(message, tenant, _metadata(context).get(KEY_HEADER, ""))

        return await service.answer(infer, request, context)

    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=service_pb2.ModelInferRequest.FromString,
        response_serializer=service_pb2.ModelInferResponse.SerializeToString,
    )


def _request(request: Message, tenant: str, key_header: str) -> InferRequest:
    if len(request.inputs) != 1 or len(request.outputs) > 1:
        raise BadRequestError(f"exactly one input and at most one output expected: {TENSOR!r}")
    tensor = request.inputs[0]
    check_tensor(tensor.name, tensor.datatype)
    if any(output.name != TENSOR for output in request.outputs):
        raise BadRequestError(f"unknown output: the only output is {TENSOR!r}")
    shape = tuple(tensor.shape)
    frames: list[Frame] = list(tensor.contents.bytes_contents)
    if request.raw_input_contents:
        if frames or len(request.raw_input_contents) != 1:
            raise BadRequestError("give the tensor once: as raw_input_contents or as contents")
        raw = memoryview(request.raw_input_contents[0])
        frames = list(split_bytes(raw, min(element_count(shape), len(raw) + 1)))
    return InferRequest(
        request.model_name,
        request.model_version,
        request.id,
        parse_parameters(_parameters(request)),
        shape,
        frames,
        key_header,
        tenant,
    )


def _parameters(request: Message) -> dict[str, Scalar | None]:
    chosen = ((name, item, item.WhichOneof("parameter_choice")) for name, item in _items(request))
    return {name: getattr(item, kind) if kind else None for name, item, kind in chosen}


def _items(request: Message) -> list[tuple[str, Message]]:
    return list(request.parameters.items())


def _response(answer: InferAnswer) -> Message:
    response = service_pb2.ModelInferResponse(
        model_name=answer.model, model_version=answer.version, id=answer.id
    )
    for name, value in answer.parameters.items():
        _set_parameter(response.parameters[name], value)
    response.outputs.add(name=TENSOR, datatype="BYTES", shape=list(answer.shape))
    response.raw_output_contents.append(join_bytes(answer.frames))
    return response


def _set_parameter(parameter: Message, value: Scalar) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case str():
            parameter.string_param = value


def _message(message: Message, fields: Mapping[str, object]) -> Message:
    return json_format.Parse(json.dumps(fields), message, ignore_unknown_fields=False)


def _metadata(context: Context) -> dict[str, str]:
    pairs = context.invocation_metadata() or ()
    return {k.lower(): v if isinstance(v, str) else "" for k, v in pairs}
