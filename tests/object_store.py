"""An S3 server on loopback, which counts requests and can be made to fail some of them."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hilum import filesystems


class Flaky:
    """A WSGI application that answers some of the requests with 503, and counts them."""

    def __init__(self, application: Any) -> None:
        self.application, self.share, self.refused, self._chance = application, 0.0, 0, random.Random(0)
        self.gets: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if self._chance.random() < self.share:
            self.refused += 1
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if environ["REQUEST_METHOD"] == "GET":
            self.gets[environ["PATH_INFO"]] += 1
        answer: Iterable[bytes] = self.application(environ, start_response)
        return answer


@contextmanager
def serving_s3() -> Iterator[Flaky]:
    """Serve S3, and set the variables that name the server and its credentials."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = Flaky(DomainDispatcherApplication(create_backend_app))
    serving = make_server("127.0.0.1", 0, application, threaded=True)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{serving.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        filesystems._opened.cache_clear()
        yield application
        filesystems._opened.cache_clear()
    serving.shutdown()
