"""The REST application and web app: ``create_app`` for any ASGI server, and ``run``, which serves it with uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import uvicorn
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from hilum._version import __version__
from hilum.service.address import bind, url_of
from hilum.service.connections import bounded_protocol
from hilum.service.engine import Engine
from hilum.service.metrics import Metrics
from hilum.service.middleware import LOGGER, REQUEST_ID, Envelope, logging_to_stderr
from hilum.service.model_routes import add_model_routes, add_operation_routes
from hilum.service.open_inference import add_open_inference_routes
from hilum.service.predict_routes import STORED_HEADER, add_dicom_route, add_image_route, add_predict_routes
from hilum.service.problems import ProblemError, problem, problem_response
from hilum.service.settings import ServeSettings
from hilum.service.static import add_web_app


def create_app(settings: ServeSettings) -> FastAPI:
    """Return the REST application with the web app, its bundle loaded.

    Raises:
        BundleError: The bundle cannot be loaded, or its self-test fails.
        DataError: The audit report cannot be read.
    """
    audit = None
    if settings.audit is not None:
        from hilum.service.documents import read_audit

        audit = read_audit(settings.audit)
    metrics = Metrics()
    engine = Engine(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        facts = {
            "bundle_id": engine.manifest.bundle_id, "gate": engine.gate, "version": __version__,
            **engine.network._asdict(), "self_test": engine.self_test,
        }  # fmt: skip
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
    app.state.engine, app.state.metrics = engine, metrics
    _add_handlers(app)
    add_predict_routes(app, engine, settings)
    add_image_route(app, engine)
    add_dicom_route(app, engine)
    add_model_routes(app, engine, settings, audit)
    add_open_inference_routes(app, engine, settings)
    add_operation_routes(app, engine, metrics)
    add_web_app(app)
    app.add_middleware(Envelope, settings=settings, metrics=metrics, turned_away=engine.turned_away)
    if settings.cors:  # outermost, since a preflight request carries no token and problems need its headers too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After", STORED_HEADER],
        )
    return app


def _add_handlers(app: FastAPI) -> None:
    """Convert expected errors to problem details; Envelope handles unexpected ones."""

    @app.exception_handler(ProblemError)
    async def on_problem(request: Request, error: ProblemError) -> Response:
        return problem_response(error.problem, request.scope, error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        detail = f"{place}: {first['msg']}, got {first.get('input')!r:.80}"
        return problem_response(problem("bad-request", 422, detail), request.scope)

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> Response:
        kind = "not-found" if error.status_code == HTTPStatus.NOT_FOUND else "bad-request"
        found = problem(kind, error.status_code, str(error.detail))
        return problem_response(found, request.scope, error.headers)


def run(settings: ServeSettings, announce: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM, then finish accepted requests.

    Args:
        settings: Settings of the service; port 0 selects a free port.
        announce: Called with the URL when the address is bound.

    Raises:
        BundleError: The bundle cannot be loaded, or its self-test fails.
        DataError: The audit report cannot be read.
        ConfigError: The address cannot be bound.
    """
    with logging_to_stderr(), bind(settings.host, settings.port) as bound:
        server = create_server(settings)
        host, port = bound.getsockname()[:2]
        announce(url_of(host, port))
        server.run(sockets=[bound])


def create_server(settings: ServeSettings) -> uvicorn.Server:
    """Return the server of the REST application, its bundle loaded; ``run(sockets=...)`` serves it.

    Raises:
        BundleError: The bundle cannot be loaded, or its self-test fails.
        DataError: The audit report cannot be read.
    """
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings, app.state.metrics),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown,
    )
    server = uvicorn.Server(config)
    app.state.metrics.connections.set_function(lambda: len(server.server_state.connections))
    return server
