"""A DICOMweb server that gives every request the same answer, without a socket."""

from __future__ import annotations

import io
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from hilum.dicomweb.address import Address
from hilum.dicomweb.server import Server


class _Answering(BaseAdapter):
    """Transport of such a server."""

    def __init__(self, body: bytes, kind: str) -> None:
        super().__init__()
        self._body, self._kind = body, kind

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:  # type: ignore[override]
        raw = HTTPResponse(io.BytesIO(self._body), {"Content-Type": self._kind}, status=200, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        return


def answering(body: bytes, kind: str) -> Server:
    """A client of the server; ``kind`` is the Content-Type of the answer."""
    server = Server(Address("http://127.0.0.1:1/dicom-web"))
    server._session.mount("http://", _Answering(body, kind))
    return server
