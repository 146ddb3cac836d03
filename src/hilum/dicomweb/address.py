"""URL and credentials of a DICOMweb service. Requests are in hilum.dicomweb.server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hilum.errors import ConfigError

TOKEN = "HILUM_DICOMWEB_TOKEN"  # the names of variables, not secrets
USER = "HILUM_DICOMWEB_USER"
PASSWORD = "HILUM_DICOMWEB_PASSWORD"
"""Environment variables with the credentials; command-line options would be visible in the process list."""


@dataclass(frozen=True)
class Address:
    """URL and credentials of a DICOMweb service.

    Attributes:
        url: URL without a trailing slash.
        token: Bearer token (RFC 6750), or None.
        login: User and password for HTTP basic authentication (RFC 7617), or None.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)


def address_of(url: str, environment: Mapping[str, str], *, plain_http: bool = False) -> Address:
    """Return the address of a DICOMweb service with the credentials of the environment.

    Args:
        url: http or https URL, such as ``https://pacs.example/dicom-web``.
        environment: Environment with HILUM_DICOMWEB_TOKEN, or HILUM_DICOMWEB_USER and HILUM_DICOMWEB_PASSWORD.
        plain_http: Allow http to another machine.

    Raises:
        ConfigError: The URL is invalid or contains credentials; both kinds of credentials are set, or only half of one;
            or the URL is http to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        shown = url.rpartition("@")[2]
        raise ConfigError(
            f"{shown!r} is not the URL of a DICOMweb service.", hint="For example: http://localhost:8042/dicom-web"
        )
    if "@" in parts.netloc:
        raise ConfigError(
            f"The URL of {host} contains credentials, which would be visible in the process list.",
            hint=f"Set the environment variables {USER} and {PASSWORD}, or {TOKEN}.",
        )
    token = environment.get(TOKEN) or None
    user, password = environment.get(USER) or None, environment.get(PASSWORD) or None
    if token and (user or password):
        raise ConfigError(f"{TOKEN} and {USER} with {PASSWORD} exclude each other.", hint="Unset one of them.")
    if bool(user) != bool(password):
        raise ConfigError(f"Only one of {USER} and {PASSWORD} is set.", hint="Set both, or neither.")
    login = (user, password) if user and password else None
    if login is not None and ":" in login[0]:
        raise ConfigError(
            f"{USER} contains a colon, which basic authentication does not allow.",
            hint=f"Use {TOKEN}, or another user.",
        )
    if parts.scheme == "http" and not (plain_http or _is_loopback(host)):
        raise ConfigError(
            f"http://{host} would transfer images and credentials unencrypted to another machine.",
            hint="Use https, or --plain-http inside a private network.",
        )
    return Address(url.rstrip("/"), token, login)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
