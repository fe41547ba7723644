"""The HTTP application: KServe v2 under /v2, our own routes under /v1, and one error boundary."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, Router

from tacit.errors import TacitError
from tacit.runtime import descriptions
from tacit.runtime.bodies import Memory, Receive
from tacit.runtime.config_text import config_text
from tacit.runtime.endpoint import Endpoint
from tacit.runtime.http_infer import InferRoute, Scope, Send
from tacit.runtime.http_json import read_small_json
from tacit.runtime.http_keys import key_routes
from tacit.runtime.http_training import TrainingRoutes
from tacit.runtime.keystore import KeyStore
from tacit.runtime.metrics import Metrics, statistics
from tacit.runtime.party_routes import party_routes
from tacit.runtime.party_store import PartyStore
from tacit.runtime.refusals import MethodError, NotFoundError
from tacit.runtime.repository import ModelVersion
from tacit.runtime.statuses import body_of, code_of, status_of
from tacit.runtime.tenants import Tenants
from tacit.runtime.training_service import TrainingService
from tacit.runtime.v2_json import LARGEST_HEADER
from tacit.runtime.warm_start import WarmStart

_LOG = logging.getLogger("tacit.runtime.http")
_OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Status = Callable[[], dict[str, object]]
Answering = Callable[[Request], Awaitable[Response]]


class ErrorBoundary:
    """Authenticates, and turns every exception into a JSON error body with its status."""

    def __init__(self, application: Application, tenants: Tenants, metrics: Metrics) -> None:
        self._application = application
        self._tenants = tenants
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; see the class."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = False

        async def watched(message: Scope) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            self._authenticate(scope)
            await self._application(scope, receive, watched)
        except Exception as error:
            await self._answer_error(_ours(error, scope["method"]), started, scope, receive, send)

    async def _answer_error(
        self, error: Exception, started: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._metrics.refused(code_of(error))
        if not isinstance(error, TacitError):
            _LOG.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
        if started:
            raise error
        await _error_response(error)(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        scope["app"] = self._application
        state = scope.setdefault("state", {})
        if scope["path"] in _OPEN_PATHS:
            return
        headers: Mapping[bytes, bytes] = dict(scope["headers"])
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        state["tenant"] = self._tenants.authenticate(authorization)


class ModelRoutes:
    """Handlers of the small KServe routes."""

    def __init__(
        self,
        endpoint: Endpoint,
        memory: Memory,
        is_ready: Callable[[], bool],
        server_status: Status,
    ) -> None:
        self._endpoint = endpoint
        self._server_status = server_status
        self._memory = memory
        self._is_ready = is_ready

    def routes(self, infer: InferRoute) -> list[BaseRoute]:
        """Return the routes; `infer` is the raw application of the infer route."""
        get: list[tuple[str, Answering]] = [
            ("/v2", self.metadata),
            ("/v2/health/live", self.live),
            ("/v2/health/ready", self.ready),
            ("/v2/models/stats", self.all_stats),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            get.append((prefix, self.model_metadata))
            get.append((f"{prefix}/ready", self.model_ready))
            get.append((f"{prefix}/config", self.model_config))
            get.append((f"{prefix}/stats", self.model_stats))
        for prefix in ("/v1/models/{model}", "/v1/models/{model}/versions/{version}"):
            get.append((f"{prefix}/signature", self.signature))
            get.append((f"{prefix}/config.pbtxt", self.model_text))
        get.append(("/v1/status", self.server_status))
        get.append(("/metrics", self.metrics))
        routes: list[BaseRoute] = [Route(path, handler, methods=["GET"]) for path, handler in get]
        for path in ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer"):
            routes.append(Route(path, infer))
        base = "/v2/repository"
        routes.append(Route(f"{base}/index", self.index, methods=["POST"]))
        routes.append(Route(f"{base}/models/{{model}}/load", self.load, methods=["POST"]))
        routes.append(Route(f"{base}/models/{{model}}/unload", self.unload, methods=["POST"]))
        return routes

    async def metadata(self, request: Request) -> Response:
        """Describe the server."""
        return JSONResponse(descriptions.server_metadata())

    async def live(self, request: Request) -> Response:
        """Answer that the process runs."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answer 200 while requests are accepted, 503 during shutdown."""
        ready = self._is_ready()
        return JSONResponse({"ready": ready}, status_code=200 if ready else 503)

    async def model_metadata(self, request: Request) -> Response:
        """Describe a model, with its public half."""
        model = self._model(request)
        return JSONResponse(descriptions.model_metadata(self._endpoint.repository, model))

    async def model_ready(self, request: Request) -> Response:
        """Answer whether a model can be asked."""
        model = self._model(request)
        return JSONResponse({"name": model.name, "ready": True})

    async def model_config(self, request: Request) -> Response:
        """Return the model's configuration in Triton's form."""
        largest = self._endpoint.limits.evaluations
        return JSONResponse(descriptions.model_config(self._model(request), largest))

    async def model_text(self, request: Request) -> Response:
        """Return the model's configuration as the text of a `config.pbtxt`."""
        largest = self._endpoint.limits.evaluations
        fields = descriptions.model_config(self._model(request), largest)
        return PlainTextResponse(config_text(fields))

    async def model_stats(self, request: Request) -> Response:
        """Return one model's statistics."""
        return self._stats([self._model(request)])

    async def all_stats(self, request: Request) -> Response:
        """Return every model's statistics."""
        return self._stats(self._endpoint.repository.loaded())

    async def signature(self, request: Request) -> Response:
        """Return a model's public half."""
        return JSONResponse(self._model(request).signature.to_json())

    async def metrics(self, request: Request) -> Response:
        """Return the counters in the Prometheus text format."""
        return PlainTextResponse(self._endpoint.metrics.text())

    async def server_status(self, request: Request) -> Response:
        """Say what computes on ciphertexts and why, and what the workers hold."""
        return JSONResponse(self._server_status())

    async def index(self, request: Request) -> Response:
        """List the repository."""
        fields = await self._small_json(request)
        entries = self._endpoint.repository.index()
        only_ready = fields.get("ready", False) is True
        shown = [asdict(e) for e in entries if e.state == "READY" or not only_ready]
        return JSONResponse(shown)

    async def load(self, request: Request) -> Response:
        """Load a model again from disk."""
        await self._small_json(request)
        tenant, model = request.scope["state"]["tenant"], request.path_params["model"]
        await asyncio.to_thread(self._endpoint.load, tenant, model)
        return JSONResponse({})

    async def unload(self, request: Request) -> Response:
        """Stop offering a model."""
        await self._small_json(request)
        self._endpoint.unload(request.scope["state"]["tenant"], request.path_params["model"])
        return JSONResponse({})

    def _model(self, request: Request) -> ModelVersion:
        path = request.path_params
        return self._endpoint.repository.find(path["model"], path.get("version", ""))

    def _stats(self, models: list[ModelVersion]) -> Response:
        metrics = self._endpoint.metrics
        entries = [statistics(m.name, m.version, metrics.counts(m.name, m.version)) for m in models]
        return JSONResponse({"model_stats": entries})

    async def _small_json(self, request: Request) -> dict[str, object]:
        return await read_small_json(request, self._memory, LARGEST_HEADER)


def build_application(
    endpoint: Endpoint,
    keys: KeyStore,
    tenants: Tenants,
    memory: Memory,
    is_ready: Callable[[], bool],
    server_status: Status,
    warm_start: WarmStart,
    idle_seconds: float,
    parties: PartyStore,
    training: TrainingService,
) -> Application:
    """Assemble the HTTP application; a body may pause for `idle_seconds`."""
    infer = InferRoute(endpoint, memory, idle_seconds, warm_start)
    routes = ModelRoutes(endpoint, memory, is_ready, server_status).routes(infer)
    routes += key_routes(keys, memory, idle_seconds, endpoint.audit, warm_start)
    routes += party_routes(parties, memory, idle_seconds, endpoint.audit)
    limits = endpoint.limits
    trainings = TrainingRoutes(training, memory, idle_seconds, limits.body_bytes, limits.seconds)
    routes += trainings.routes()
    return ErrorBoundary(Router(routes, redirect_slashes=False), tenants, endpoint.metrics)


def metrics_application(metrics: Metrics) -> Application:
    """Return the application of the metrics port."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        found = scope["path"] == "/metrics" and scope["method"] == "GET"
        response = (
            PlainTextResponse(metrics.text())
            if found
            else _error_response(NotFoundError("this port has GET /metrics only"))
        )
        await response(scope, receive, send)

    return answer


def _ours(error: Exception, method: str) -> Exception:
    """Translate the router's own exceptions."""
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        return MethodError(f"{method} is not allowed here")
    return NotFoundError("no such route: KServe v2 is under /v2, our own routes under /v1")


def _error_response(error: Exception) -> Response:
    body = json.dumps(body_of(error)).encode()
    status = status_of(error).http
    return Response(body, status_code=status, media_type="application/json")
