"""The routes about the loaded bundle, and those of operation: health and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from hilum.bundle.bundle import MODEL_CARD, Manifest
from hilum.service.engine import Engine
from hilum.service.metrics import Metrics
from hilum.service.predict_routes import PROBLEMS
from hilum.service.problems import ProblemError
from hilum.service.schemas import AuditFindingSchema, AuditSchema, BundleSchema, HealthSchema
from hilum.service.settings import ServeSettings

if TYPE_CHECKING:  # the audit's modules are only needed with a report
    from hilum.audit.report import AuditReport

_ABSENT: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[422], "description": "There is none."}}
_GUARDED: dict[int | str, dict[str, Any]] = {401: PROBLEMS[401]}


def add_model_routes(app: FastAPI, engine: Engine, settings: ServeSettings, audit: AuditReport | None) -> None:
    """Add the routes about bundle and audit."""

    @app.get(
        "/v1/bundle", operation_id="bundle", summary="Describe the loaded bundle", tags=["model"], responses=_GUARDED
    )
    async def bundle() -> BundleSchema:
        """Describe the loaded bundle: classes, network, calibration."""
        manifest = engine.manifest
        shared = BundleSchema.model_fields.keys() & Manifest.model_fields.keys() - {"gate"}
        return BundleSchema(
            **manifest.model_dump(include=shared),
            network=manifest.model.name,
            input_size=manifest.preprocess.size,
            gate=engine.gate,
            has_prediction_sets=bool(manifest.prediction_set_quantiles),
            max_upload_bytes=settings.max_upload_bytes,
        )

    @app.get(
        "/v1/bundle/card", operation_id="card", summary="Get the model card", tags=["model"],
        response_class=PlainTextResponse, responses=_GUARDED | _ABSENT,
    )  # fmt: skip
    async def card() -> Response:
        """Return the model card, Markdown."""
        if MODEL_CARD not in engine.bundle:
            raise ProblemError.of("not-found", 404, "This bundle has no model card.")
        return Response(engine.bundle.read(MODEL_CARD), media_type="text/markdown; charset=utf-8")

    @app.get(
        "/v1/audit", operation_id="audit", summary="Get the audit's findings", tags=["model"],
        responses=_GUARDED | _ABSENT,
    )  # fmt: skip
    async def findings() -> AuditSchema:
        """Return the conclusion and the findings of the audit that the service was started with."""
        if audit is None:
            raise ProblemError.of("not-found", 404, "The service was started without an audit.")
        data = audit.data
        return AuditSchema(
            name=data.name, images=data.images, groups=data.groups, sources=len(data.sources),
            conclusion="" if audit.conclusion is None else audit.conclusion.text,
            findings=[
                AuditFindingSchema(word=found.word, check=found.check, severity=found.severity, message=found.message,
                                   count=found.count)
                for found in audit.findings if not found.is_probe_note
            ],
            not_run=audit.not_run,
        )  # fmt: skip


def add_operation_routes(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    """Add the routes of health and metrics."""

    @app.get("/healthz", operation_id="healthz", summary="Check that the process is alive", tags=["operation"])
    async def healthz() -> HealthSchema:
        """Return whether the process is alive."""
        return HealthSchema(status="ok")

    @app.get(
        "/readyz", operation_id="readyz", summary="Check that requests are accepted", tags=["operation"],
        responses={503: PROBLEMS[503]},
    )  # fmt: skip
    async def readyz() -> HealthSchema:
        """Return whether the service accepts requests."""
        engine.check_ready()
        return HealthSchema(status="ok")

    @app.get(
        "/metrics", operation_id="metrics", summary="Get Prometheus metrics", tags=["operation"],
        response_class=PlainTextResponse, responses=_GUARDED,
    )  # fmt: skip
    async def measurements() -> Response:
        """Return metrics in the Prometheus format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
