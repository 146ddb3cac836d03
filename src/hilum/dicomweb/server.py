"""Client of a DICOMweb service: search, retrieve and store (PS3.18 10.4 to 10.6), with retries and size limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from email.message import Message
from http.client import responses
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import requests
from dicomweb_client.api import DICOMwebClient
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, ReadTimeoutError
from urllib3.util.retry import Retry

from hilum.dicomweb.address import PASSWORD, TOKEN, USER, Address
from hilum.dicomweb.pace import MIN_RATE, paced_session
from hilum.dicomweb.selection import SOP_INSTANCE, Image, Item, value
from hilum.errors import ConfigError, RequestError, ServerError
from hilum.imaging.read import MAX_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_BYTES = 2 * MAX_PIXELS + (1 << 26)
"""Maximum size of a fetched image: two bytes for each of MAX_PIXELS, and an allowance for the header."""

_TIMEOUT = (10.0, 60.0)  # seconds to connect, and for a response, see pace.py
_RETRIES = Retry(
    total=4, connect=2, read=2, redirect=0, backoff_factor=0.5, status_forcelist=(408, 429, 502, 503, 504),
    allowed_methods=None,  # also POST, since stored objects have the same UIDs each time
    raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
_PAGE = 200
_LAST_PAGE = 25  # a shorter page is the last one, since servers have higher page limits
_CHUNK = 1 << 20
_INSTANCE_HEADERS = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',  # in the stored transfer syntax
}
_STUDIES = "list studies"
_SHUT_OUT = (401, 403, 407)
_CLIENT_ERRORS = (ValueError, TypeError, AttributeError, LookupError, RecursionError, ParseError)  # on other answers


class Server:
    """Client of a DICOMweb service, to be used as a context manager. Not thread-safe.

    Args:
        address: URL and credentials.
        timeout: Seconds to connect, and for a response; it has a second more for each ``pace.MIN_RATE`` bytes.

    Raises:
        ConfigError: The URL is invalid.
    """

    def __init__(self, address: Address, *, timeout: tuple[float, float] = _TIMEOUT) -> None:
        session = paced_session(_RETRIES)
        session.auth = _Credentials(address)
        session.max_redirects = 0
        self.url, self._session, self._timeout = address.url, session, timeout
        try:
            # A single chunk, since chunked requests cannot be retried.
            client = DICOMwebClient(address.url, session, chunk_size=1 << 31, permissive_uid=True, timeout=timeout)
        except ValueError as error:
            raise ConfigError(f"{address.url!r} is not the URL of a DICOMweb service.", hint=_ROOT) from error
        client.set_http_retry_params(retry=False)
        client.host = urlsplit(address.url).netloc  # the client would omit the port in the Host header
        self._client = client

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def studies(self, filters: Mapping[str, str]) -> Iterator[Item]:
        """Yield the studies that match; raises as ``has``."""
        return self._search(self._client.search_for_studies, filters, _STUDIES)

    def series(self, study: str, fields: Sequence[str] = ()) -> Iterator[Item]:
        """Yield the series of a study with additional attributes; raises as ``has``."""
        return self._search(self._client.search_for_series, {}, "list series", (study,), fields)

    def instances(self, study: str, series: str) -> Iterator[Item]:
        """Yield the instances of a series; raises as ``has``."""
        return self._search(self._client.search_for_instances, {}, "list instances", (study, series))

    def has(self, study: str, instance: str) -> bool:
        """Return whether a study contains an instance.

        Raises:
            RequestError: The search failed, or the response is not a search result.
            ServerError: The server cannot be reached, or rejects the credentials.
        """
        found = self._search(
            self._client.search_for_instances, {"SOPInstanceUID": instance}, "look up an instance", (study,)
        )
        return any(value(item, SOP_INSTANCE) == instance for item in found)

    def fetch(self, image: Image) -> bytes:
        """Return an image as a DICOM file (PS3.10) in its stored transfer syntax.

        Raises:
            RequestError: The image does not exist, is incomplete, or larger than MAX_BYTES.
            ServerError: The server cannot be reached, or rejects the credentials.
        """
        url = f"{self.url}/studies/{image.study}/series/{image.series}/instances/{image.instance}"
        body = bytearray()
        with (
            self._errors("fetch the image"),
            self._session.get(url, headers=_INSTANCE_HEADERS, stream=True, timeout=self._timeout) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise RequestError(f"The image is larger than {MAX_BYTES:,} bytes.")
            return _part(bytes(body), response.headers.get("Content-Type", ""))

    def store(self, study: str, datasets: Sequence[Dataset]) -> None:
        """Store instances in a study, in one request.

        Raises:
            RequestError: The server did not store all instances.
            ServerError: The server cannot be reached, or rejects the credentials.
        """
        for dataset in datasets:  # otherwise, the client omits the preamble that PS3.10 requires
            dataset.preamble = getattr(dataset, "preamble", None) or b"\0" * 128
        with self._errors("store results"):
            answer = self._client.store_instances(datasets, study_instance_uid=study)
            failed = {str(item.ReferencedSOPInstanceUID): item for item in answer.get("FailedSOPSequence") or ()}
            told = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or ()}
            for dataset in datasets:
                uid = str(dataset.SOPInstanceUID)
                if uid in failed or (told and uid not in told):
                    code = failed[uid].get("FailureReason") if uid in failed else None
                    why = "no reason given" if code is None else f"failure reason {int(code):04X}H (PS3.18 I.2.2)"
                    raise RequestError(f"{self.url} refused to store the {dataset.Modality}: {why}.")

    def _search(
        self,
        ask: Callable[..., Sequence[Item]],
        filters: Mapping[str, str],
        what: str,
        path: tuple[str, ...] = (),
        fields: Sequence[str] = (),
    ) -> Iterator[Item]:
        """Yield all results page by page, until a page is short or repeats, since some servers ignore the offset."""
        offset, last = 0, None
        while True:
            with self._errors(what):
                page = ask(*path, limit=_PAGE, offset=offset, search_filters=dict(filters), fields=list(fields) or None)
            if not isinstance(page, list) or not all(isinstance(item, Mapping) for item in page):
                raise RequestError(f"Cannot {what} at {self.url}: the response is not DICOM JSON.", hint=_ROOT)
            if page == last:
                return
            yield from page
            if len(page) < _LAST_PAGE:
                return
            offset, last = offset + len(page), page

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Convert errors of a request. Response bodies are never shown, since they may contain patient names."""
        failed = f"Cannot {what} at {self.url}"
        try:
            yield
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            got = f"{failed}: {status} {responses.get(status, '')}".rstrip() + "."
            if status in _SHUT_OUT:
                raise ServerError(got, hint=f"Set {USER} and {PASSWORD}, or {TOKEN}.") from error
            raise RequestError(got, hint=_ROOT if status == 404 and what == _STUDIES else "") from error
        except requests.TooManyRedirects as error:
            target = error.response.headers.get("Location", "") if error.response is not None else ""
            raise ServerError(f"{failed}: it redirects to {target!r}.", hint="Use the final URL.") from error
        except requests.exceptions.SSLError as error:
            raise ServerError(
                f"{failed}: its certificate is not trusted.",
                hint="Set REQUESTS_CA_BUNDLE to the file of your certificate authority.",
            ) from error
        except requests.JSONDecodeError as error:
            raise RequestError(f"{failed}: the response is not DICOMweb.", hint=_ROOT) from error
        except requests.RequestException as error:
            if isinstance(_root_of(error), (ConnectTimeoutError, NewConnectionError, ProxyError)):
                raise ServerError(
                    f"{failed}: it cannot be reached ({_cause(error)}).", hint="Check that it is running, and the URL."
                ) from error
            if isinstance(_root_of(error), (ReadTimeoutError, TimeoutError)):
                slow = f"no response for {self._timeout[1]:g} s, or less than {MIN_RATE:,} bytes a second"
                raise RequestError(f"{failed}: {slow}.") from error
            raise RequestError(f"{failed}: the connection broke ({type(_root_of(error)).__name__}).") from error
        except _CLIENT_ERRORS as error:
            raise RequestError(f"{failed}: the response is not DICOMweb.", hint=_ROOT) from error


_ROOT = "Use the URL of the DICOMweb root; Orthanc's is http://HOST:8042/dicom-web."


class _Credentials(AuthBase):
    """Authentication with the given credentials only; otherwise, requests would also read ~/.netrc."""

    def __init__(self, address: Address) -> None:
        self._token = address.token
        self._basic = HTTPBasicAuth(*address.login) if address.login else None

    def __call__(self, request: Any) -> Any:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return self._basic(request) if self._basic else request


def _part(body: bytes, content_type: str) -> bytes:
    """Return the first part of a multipart body (RFC 2046 5.1.1), or the body itself if it is a DICOM file."""
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise RequestError(f"The response is not a DICOM file but {header.get_content_type()}.")
    delimiter = b"--" + boundary.encode()
    start = body.find(b"\r\n\r\n", body.find(delimiter))
    end = body.find(b"\r\n" + delimiter, start)
    if start < 0 or end < 0:
        raise RequestError("The response with the DICOM file is incomplete.")
    return body[start + 4 : end]


def _root_of(error: requests.RequestException) -> object:
    """Return urllib3's original error inside the exceptions of requests and of its retries."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


def _cause(error: BaseException) -> str:
    """Return the message of the operating system, without the URL."""
    seen: BaseException | None = error
    said = "no connection"
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            said = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return said
