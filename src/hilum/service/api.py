"""The REST application: ``create_app`` for any ASGI server, and ``run``, which serves it with uvicorn."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, File, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from hilum._version import __version__
from hilum.bundle.bundle import MODEL_CARD
from hilum.service.address import bind, url_of
from hilum.service.encode import EXTRAS
from hilum.service.engine import Engine, Waiting
from hilum.service.metrics import Metrics
from hilum.service.middleware import LOGGER, PREDICT, Envelope, JsonLines
from hilum.service.problems import MEDIA_TYPE, ProblemError, problem, problem_response
from hilum.service.schemas import BundleSchema, HealthSchema, PredictResponse, Problem
from hilum.service.settings import ServeSettings

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": words, "content": {MEDIA_TYPE: {}}}
    for code, words in {
        401: "Missing or wrong bearer token.",
        408: "The request body timed out.",
        413: "The body is larger than allowed.",
        422: "The only file is refused by the input check or cannot be read, or the request is invalid.",
        429: "The queue is full; see Retry-After.",
        503: "The service is stopping, or the request timed out; see Retry-After.",
    }.items()
}


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the REST application, with its bundle loaded.

    Raises:
        BundleError: The bundle cannot be loaded.
    """
    metrics = Metrics()
    engine = Engine(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        facts = {"bundle_id": engine.manifest.bundle_id, "gate": engine.gate, "version": __version__}
        LOGGER.info("started", extra={"facts": facts})
        yield
        await asyncio.to_thread(engine.close)
        LOGGER.info("stopped")

    app: FastAPI = FastAPIOffline(
        title="hilum",
        version=__version__,
        description="Class, lung mask and evidence of chest radiographs. A research tool, not a medical device.",
        dependencies=[] if settings.token is None else [Depends(HTTPBearer(auto_error=False))],  # checked by Envelope
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.engine = engine
    _add_handlers(app)
    _add_predict(app, engine, settings)
    _add_facts(app, engine, metrics)
    app.add_middleware(Envelope, settings=settings, metrics=metrics, turned_away=engine.turned_away)
    return app


def _add_predict(app: FastAPI, engine: Engine, settings: ServeSettings) -> None:
    @app.post(PREDICT, response_model_exclude_none=True, responses=_PROBLEMS, tags=["predict"])
    async def predict(
        request: Request,
        files: Annotated[list[UploadFile], File(description="PNG, JPEG, WebP, BMP, TIFF or DICOM; one or many.")],
        include: Annotated[
            list[str] | None, Query(description=f"Images to add to each prediction, repeatable: {', '.join(EXTRAS)}.")
        ] = None,
    ) -> PredictResponse:
        """Predict on one or several images.

        A single file that is refused or cannot be read gives status 422 and a problem. Several files give status 200
        and a result for each.
        """
        extras = tuple(include or ())
        if unknown := set(extras) - set(EXTRAS):
            detail = f"Expected include among {', '.join(EXTRAS)}, got {', '.join(sorted(unknown))}."
            raise ProblemError.of("bad-request", 422, detail)
        if len(files) > settings.max_files:
            raise ProblemError.of(
                "too-many-files", 422, f"Expected at most {settings.max_files} files, got {len(files)}."
            )
        waiting = [Waiting(file.filename or f"file {n}", file.read) for n, file in enumerate(files, start=1)]
        results = await engine.predict(waiting, extras)
        if len(results) == 1 and (found := results[0].problem) is not None:
            raise ProblemError(found)
        return PredictResponse(
            bundle_id=engine.manifest.bundle_id,
            model=engine.manifest.name,
            request_id=request.state.request_id,
            results=results,
        )


def _add_facts(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    @app.get("/v1/bundle", tags=["model"])
    async def bundle() -> BundleSchema:
        """Describe the loaded bundle: classes, network, calibration."""
        manifest = engine.manifest
        return BundleSchema(
            **manifest.model_dump(include=set(BundleSchema.model_fields) - {"network", "input_size", "gate"}),
            network=manifest.model.name,
            input_size=manifest.preprocess.size,
            gate=engine.gate,
        )

    @app.get("/v1/bundle/card", response_class=PlainTextResponse, tags=["model"])
    async def card() -> Response:
        """Return the model card, Markdown."""
        return Response(engine.bundle.read(MODEL_CARD), media_type="text/markdown; charset=utf-8")

    @app.get("/healthz", tags=["operation"])
    async def healthz() -> HealthSchema:
        """Return whether the process is alive."""
        return HealthSchema(status="ok")

    @app.get("/readyz", tags=["operation"], responses={503: _PROBLEMS[503]})
    async def readyz() -> HealthSchema:
        """Return whether the service accepts requests."""
        if engine.stopping:
            raise ProblemError.of("stopping", 503)
        return HealthSchema(status="ok")

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    async def measurements() -> Response:
        """Return metrics in the Prometheus format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_handlers(app: FastAPI) -> None:
    """Convert expected errors to problem details; Envelope handles unexpected ones."""

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> Response:
        return problem_response(error.problem, request.state.request_id, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return problem_response(problem("bad-request", 422, f"{place}: {first['msg']}"), request.state.request_id)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        kind = "not-found" if error.status_code == HTTPStatus.NOT_FOUND else "bad-request"
        found = problem(kind, error.status_code, str(error.detail))
        return problem_response(found, request.state.request_id, error.headers)


def run(settings: ServeSettings, announce: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM, then finish accepted requests.

    Args:
        settings: Settings of the service; port 0 selects a free port.
        announce: Called with the URL when the address is bound.

    Raises:
        BundleError: The bundle cannot be loaded.
        ConfigError: The address cannot be bound.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    bound = bind(settings.host, settings.port)
    config = uvicorn.Config(
        create_app(settings),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown,
    )
    host, port = bound.getsockname()[:2]
    announce(url_of(host, port))
    with bound:
        uvicorn.Server(config).run(sockets=[bound])
