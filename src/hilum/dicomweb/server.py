"""The three transactions with a DICOMweb service (PS3.18 10.4 to 10.6), with retries, bounds and one kind of error."""

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
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError, ReadTimeoutError
from urllib3.util.retry import Retry

from hilum.dicomweb.address import PASSWORD, TOKEN, USER, Address
from hilum.dicomweb.selection import SOP_INSTANCE, Image, Item, value
from hilum.errors import ConfigError, RequestError, ServerError
from hilum.imaging.read import MAX_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset

MAX_BYTES = 2 * MAX_PIXELS + (1 << 26)
"""Largest image that is fetched: the most pixels that are decoded, two bytes each, and what stands beside them."""

_TIMEOUT = (10.0, 60.0)  # seconds: to connect, and without a byte
_RETRIES = Retry(
    total=4, connect=2, read=2, redirect=0, backoff_factor=0.5, status_forcelist=(408, 429, 502, 503, 504),
    allowed_methods=None,  # also POST: what is stored has the same UIDs each time
    raise_on_status=False, respect_retry_after_header=False,
)  # fmt: skip
_PAGE = 200
_LAST_PAGE = 25  # a shorter page is the last one: the bounds that servers set to pages are higher
_CHUNK = 1 << 20
_INSTANCE_HEADERS = {
    "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*',  # as it is stored
    "Accept-Encoding": "identity",  # Orthanc takes longer to compress an image than a local network to carry it
}
_STUDIES = "the list of studies"
_SHUT_OUT = (401, 403, 407)


class Server:
    """A DICOMweb service. Nothing is asked of it before the first call; not for several threads at once.

    Used as a context manager, it closes its connections.
    """

    def __init__(self, address: Address, *, timeout: tuple[float, float] = _TIMEOUT) -> None:
        session = requests.Session()
        session.auth = _Credentials(address)
        session.max_redirects = 0
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=_RETRIES))
        self.url, self._session, self._timeout = address.url, session, timeout
        try:
            # One chunk: the client's chunks cannot be sent a second time.
            client = DICOMwebClient(address.url, session, chunk_size=1 << 31, permissive_uid=True, timeout=timeout)
        except ValueError as error:
            raise ConfigError(f"Expected the URL of a DICOMweb service, got {address.url!r}.") from error
        client.set_http_retry_params(retry=False)
        client.host = urlsplit(address.url).netloc  # it would send the name without the port as Host
        self._client = client

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()

    def studies(self, filters: Mapping[str, str]) -> Iterator[Item]:
        """The studies that match; see ``_search`` for errors."""
        return self._search(self._client.search_for_studies, filters, _STUDIES)

    def series(self, study: str, fields: Sequence[str] = ()) -> Iterator[Item]:
        """The series of a study, with optional attributes in addition."""
        return self._search(self._client.search_for_series, {}, "the list of series", (study,), fields)

    def instances(self, study: str, series: str) -> Iterator[Item]:
        """The instances of a series."""
        return self._search(self._client.search_for_instances, {}, "the list of instances", (study, series))

    def has(self, study: str, instance: str) -> bool:
        """Whether a study holds an instance, wherever in it."""
        found = self._search(
            self._client.search_for_instances, {"SOPInstanceUID": instance}, "whether an instance is there", (study,)
        )
        return any(value(item, SOP_INSTANCE) == instance for item in found)

    def fetch(self, image: Image) -> bytes:
        """An image as the archive stores it: a DICOM file (PS3.10), its pixels compressed as they are there.

        Raises:
            RequestError: It is not there, damaged on the way, or larger than MAX_BYTES.
            ServerError: The server cannot be reached, or rejects the credentials.
        """
        url = f"{self.url}/studies/{image.study}/series/{image.series}/instances/{image.instance}"
        body = bytearray()
        with (
            self._errors("the image"),
            self._session.get(url, headers=_INSTANCE_HEADERS, stream=True, timeout=self._timeout) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_content(_CHUNK):
                body += chunk
                if len(body) > MAX_BYTES:
                    raise RequestError(f"Expected at most {MAX_BYTES:,} bytes of an image, got more.")
            return _part(bytes(body), response.headers.get("Content-Type", ""))

    def store(self, study: str, datasets: Sequence[Dataset]) -> None:
        """Store instances in a study, in one request.

        Raises:
            RequestError: The server did not take all of them.
            ServerError: It cannot be reached, or rejects the credentials.
        """
        for dataset in datasets:  # without one, the client leaves out the preamble and the file is no PS3.10 file
            dataset.preamble = getattr(dataset, "preamble", None) or b"\0" * 128
        with self._errors("the storing of results"):
            answer = self._client.store_instances(datasets, study_instance_uid=study)
        failed = {str(item.ReferencedSOPInstanceUID): item for item in answer.get("FailedSOPSequence") or ()}
        told = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or ()}
        for dataset in datasets:
            uid = str(dataset.SOPInstanceUID)
            if uid in failed or (told and uid not in told):
                code = failed[uid].get("FailureReason") if uid in failed else None
                why = "without a reason" if code is None else f"with reason {int(code):04X}H (PS3.18 I.2.2)"
                raise RequestError(f"Expected {self.url} to store the {dataset.Modality}, it refused {why}.")

    def _search(
        self,
        ask: Callable[..., Sequence[Item]],
        filters: Mapping[str, str],
        what: str,
        path: tuple[str, ...] = (),
        fields: Sequence[str] = (),
    ) -> Iterator[Item]:
        """Every result, page by page, until one is short or brings nothing new: some servers ignore the offset.

        Raises:
            RequestError: The search failed, or what came is no result of a search.
            ServerError: The server cannot be reached, or rejects the credentials.
        """
        offset, last = 0, None
        while True:
            with self._errors(what):
                page = ask(*path, limit=_PAGE, offset=offset, search_filters=dict(filters), fields=list(fields) or None)
            if not isinstance(page, list) or not all(isinstance(item, Mapping) for item in page):
                raise RequestError(f"Expected {what} of {self.url} as DICOM JSON, got something else.", hint=_ROOT)
            if page == last:
                return
            yield from page
            if len(page) < _LAST_PAGE:
                return
            offset, last = offset + len(page), page

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Every error of a request as ours. What a body says is never shown: a server may put names into it."""
        asked = f"Expected {what} from {self.url}"
        try:
            yield
        except requests.HTTPError as error:
            status = 0 if error.response is None else error.response.status_code
            got = f"{asked}, got {status} {responses.get(status, '')}".rstrip() + "."
            if status in _SHUT_OUT:
                raise ServerError(got, hint=f"Set {USER} and {PASSWORD}, or {TOKEN}.") from error
            raise RequestError(got, hint=_ROOT if status == 404 and what == _STUDIES else "") from error
        except requests.TooManyRedirects as error:
            target = error.response.headers.get("Location", "") if error.response is not None else ""
            raise ServerError(f"{asked}, it points to {target!r}.", hint="Name the address that answers.") from error
        except requests.exceptions.SSLError as error:
            raise ServerError(
                f"{asked}, its certificate is not trusted.", hint="Name your authority's file in REQUESTS_CA_BUNDLE."
            ) from error
        except requests.JSONDecodeError as error:
            raise RequestError(f"{asked}, got no DICOMweb answer.", hint=_ROOT) from error
        except requests.RequestException as error:
            if isinstance(_root_of(error), (ConnectTimeoutError, NewConnectionError, ProxyError)):
                raise ServerError(f"{asked}, it cannot be reached: {_cause(error)}.", hint="Is it running?") from error
            if isinstance(_root_of(error), (ReadTimeoutError, TimeoutError)):
                raise RequestError(f"{asked}, got nothing for {self._timeout[1]:g} s.") from error
            raise RequestError(f"{asked}, the answer broke off ({type(_root_of(error)).__name__}).") from error
        except (ValueError, TypeError, AttributeError, KeyError, ParseError) as error:  # of the client, at odd answers
            raise RequestError(f"{asked}, got no DICOMweb answer.", hint=_ROOT) from error


_ROOT = "The URL is that of the DICOMweb root; Orthanc's is http://HOST:8042/dicom-web."


class _Credentials(AuthBase):
    """The credentials, and nothing else: without them, requests would also look into ~/.netrc."""

    def __init__(self, address: Address) -> None:
        self._token = address.token
        self._basic = HTTPBasicAuth(*address.login) if address.login else None

    def __call__(self, request: Any) -> Any:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return self._basic(request) if self._basic else request


def _part(body: bytes, content_type: str) -> bytes:
    """The content of the first part of a multipart body (RFC 2046 5.1.1); the body itself where it is a DICOM file."""
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return body
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise RequestError(f"Expected a DICOM file, got {header.get_content_type()}.")
    delimiter = b"--" + boundary.encode()
    start = body.find(b"\r\n\r\n", body.find(delimiter))
    end = body.find(b"\r\n" + delimiter, start)
    if start < 0 or end < 0:
        raise RequestError("Expected a whole DICOM file, the answer broke off.")
    return body[start + 4 : end]


def _root_of(error: requests.RequestException) -> object:
    """What urllib3 met, under what requests makes of it, and under that it tried again."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", None) or inner


def _cause(error: BaseException) -> str:
    """What the operating system said, without the URL around it."""
    seen: BaseException | None = error
    said = "no connection"
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            said = seen.strerror
        seen = seen.__cause__ or seen.__context__
    return said
