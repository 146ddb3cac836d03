"""The routes that take images: predictions, and the gray values of a file."""

from __future__ import annotations

import json
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import Response

from hilum.service.body import DICOM as DICOM_TYPE
from hilum.service.body import FILES, ONE_FILE, request_files
from hilum.service.encode import file_result, result_dicom, result_png
from hilum.service.engine import Engine
from hilum.service.middleware import DICOM, IMAGE, PREDICT
from hilum.service.problems import MEDIA_TYPE, ProblemError
from hilum.service.schemas import Include, ObjectKind, PredictResponse
from hilum.service.settings import ServeSettings

PNG = "image/png"
STORED_HEADER = "X-Hilum-Image"
_AS_PNG = ("mask", "overlay", "evidence")

_WORDS = {
    401: "Missing or wrong bearer token.",
    406: "The requested media type is not available.",
    408: "The request body timed out.",
    413: "The body is larger than allowed.",
    415: "The media type of the body is not supported.",
    422: "The only file is refused by the input check or cannot be read, or the request is invalid.",
    429: "The queue is full; see Retry-After.",
    503: "The service is stopping, or the request timed out; see Retry-After.",
}
_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": _CONTENT} for status, words in _WORDS.items()
}
"""OpenAPI of the problems of a request, by status."""
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def add_predict_routes(app: FastAPI, engine: Engine, settings: ServeSettings) -> None:
    """Add ``POST /v1/predict``."""
    success = {"description": "The predictions; with Accept: image/png, one image.", "content": {PNG: _BINARY}}

    @app.post(
        PREDICT, operation_id="predict", summary="Predict class, lung mask and evidence", tags=["predict"],
        response_model=PredictResponse, response_model_exclude_none=True, responses={200: success, **PROBLEMS},
        openapi_extra=FILES,
    )  # fmt: skip
    async def predict(
        request: Request,
        include: Annotated[
            list[Include] | None,
            Query(
                description="What to add to each prediction, repeatable. cells: the evidence map without its PNG.",
                examples=[["mask", "cells"]],
            ),
        ] = None,
        fix_orientation: Annotated[
            bool | None,
            Query(
                description="Undo rotations by 90° steps and an inverted gray scale; the service's setting if absent."
            ),
        ] = None,
        accept: Annotated[str | None, Header(description="image/png returns the one image of `include`.")] = None,
    ) -> PredictResponse | Response:
        """Predict on one or several images: a form of files, or one file as the body.

        A single file that is refused or cannot be read gives status 422 and a problem. Several files give status 200
        and a result for each. With `Accept: image/png`, the answer is the mask, overlay or evidence of one file.
        """
        extras = tuple(include or ())
        async with request_files(request, settings.max_files) as waiting:
            if _prefers_png(accept):
                if len(waiting) != 1 or len(extras) != 1 or extras[0] not in _AS_PNG:
                    detail = f"A PNG needs one file and one include of {', '.join(_AS_PNG)}."
                    raise ProblemError.of("not-acceptable", 406, detail)
                encode = partial(result_png, image=extras[0])
                (content,) = await engine.predict(waiting, encode, fix_orientation=fix_orientation)
                return Response(content, media_type=PNG)
            results = await engine.predict(
                waiting, partial(file_result, extras=extras), fix_orientation=fix_orientation
            )
        if len(results) == 1 and (found := results[0].problem) is not None:
            raise ProblemError(found)
        return PredictResponse(
            bundle_id=engine.manifest.bundle_id,
            model=engine.manifest.name,
            request_id=request.state.request_id,
            results=results,
        )


def add_image_route(app: FastAPI, engine: Engine) -> None:
    """Add ``POST /v1/image``."""
    values = {"description": "The values; the header says how to display them.", "content": {
        "application/octet-stream": _BINARY}, "headers": {STORED_HEADER: {
            "description": "JSON: width, height, levels, lowest, slope, intercept, inverted, pixel_aspect, presets.",
            "schema": {"type": "string"}}}}  # fmt: skip

    @app.post(
        IMAGE, operation_id="image", summary="Decode the gray values of a file", tags=["predict"],
        response_class=Response, responses={200: values, **PROBLEMS}, openapi_extra=ONE_FILE,
    )  # fmt: skip
    async def image(request: Request) -> Response:
        """Return the stored gray values of a file, before the window of a DICOM file.

        The body is height x width values, 8-bit if there are at most 256 levels, else 16-bit little-endian, which count
        from `lowest`; then for each of the levels the display value of the model's reading, 16-bit little-endian. The
        rescaled value is stored x slope + intercept; `presets` are the file's windows in its units.
        """
        async with request_files(request, 1) as waiting:
            stored = await engine.decode(waiting[0])
        height, width = stored.values.shape
        facts = {
            "width": width, "height": height, "levels": len(stored.table), "lowest": stored.lowest,
            "slope": stored.slope, "intercept": stored.intercept, "inverted": stored.inverted,
            "pixel_aspect": stored.pixel_aspect, "presets": [preset._asdict() for preset in stored.presets],
        }  # fmt: skip
        wide = len(stored.table) > 256
        body = stored.values.astype("<u2" if wide else "u1").tobytes() + stored.table.astype("<u2").tobytes()
        return Response(body, media_type="application/octet-stream", headers={STORED_HEADER: json.dumps(facts)})


def add_dicom_route(app: FastAPI, engine: Engine) -> None:
    """Add ``POST /v1/dicom``."""
    made = {"description": "The object.", "content": {DICOM_TYPE: _BINARY}}

    @app.post(
        DICOM, operation_id="dicom", summary="Predict, and get the result as a DICOM object", tags=["predict"],
        response_class=Response, responses={200: made, **PROBLEMS}, openapi_extra=ONE_FILE,
    )  # fmt: skip
    async def dicom(
        request: Request,
        kind: Annotated[
            ObjectKind,
            Query(description="Segmentation (seg), report (sr), Secondary Capture (sc) or Presentation State (pr)."),
        ],
        fix_orientation: Annotated[bool | None, Query(description="As for predict.")] = None,
    ) -> Response:
        """Predict on one DICOM file and return an object that refers to it, as `hilum predict` writes it."""
        async with request_files(request, 1) as waiting:
            encode = partial(
                result_dicom, kind=kind, manifest=engine.manifest, settings=engine.settings_of(fix_orientation)
            )
            (content,) = await engine.predict(waiting, encode, fix_orientation=fix_orientation)
        return Response(content, media_type=DICOM_TYPE)


def _prefers_png(accept: str | None) -> bool:
    """Return whether the first media type of an Accept header is PNG."""
    return (accept or "").partition(",")[0].partition(";")[0].strip().lower() == PNG
