"""Address and credentials of a DICOMweb service; nothing is asked of the network here."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from hilum.errors import ConfigError

TOKEN = "HILUM_DICOMWEB_TOKEN"  # the names of variables, not secrets
USER = "HILUM_DICOMWEB_USER"
PASSWORD = "HILUM_DICOMWEB_PASSWORD"
"""Environment variables with the credentials: a flag would stand in the list of processes."""


@dataclass(frozen=True)
class Address:
    """A DICOMweb service.

    Attributes:
        url: Without a slash at its end.
        token: A bearer token (RFC 6750), or None.
        login: User and password for HTTP's basic authentication (RFC 7617), or None.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    login: tuple[str, str] | None = field(default=None, repr=False)


def address_of(url: str, environment: Mapping[str, str], *, plain_http: bool = False) -> Address:
    """The service at ``url`` with the credentials of the environment.

    Args:
        url: Http or https, such as ``https://pacs.example/dicom-web``.
        environment: HILUM_DICOMWEB_TOKEN, or HILUM_DICOMWEB_USER and HILUM_DICOMWEB_PASSWORD; other names are ignored.
        plain_http: Let images and credentials go over http to another machine.

    Raises:
        ConfigError: No such URL, credentials inside it, both kinds or half of one, or http to another machine.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        shown = url.rpartition("@")[2]
        raise ConfigError(
            f"Expected the URL of a DICOMweb service, got {shown!r}.", hint="Such as http://localhost:8042/dicom-web."
        )
    if "@" in parts.netloc:
        raise ConfigError(
            f"Expected no user or password in the URL of {host}, got one: it would be seen in the list of processes.",
            hint=f"Set {USER} and {PASSWORD}, or {TOKEN}.",
        )
    token = environment.get(TOKEN) or None
    user, password = environment.get(USER) or None, environment.get(PASSWORD) or None
    if token and (user or password):
        raise ConfigError(f"Expected {TOKEN} or {USER} with {PASSWORD}, got both.", hint="Unset one of them.")
    if bool(user) != bool(password):
        raise ConfigError(f"Expected {USER} and {PASSWORD}, got only one of them.", hint="Set both, or neither.")
    login = (user, password) if user and password else None
    if login is not None and ":" in login[0]:
        raise ConfigError(f"Expected no colon in {USER}, got one: basic authentication cannot send it.")
    if parts.scheme == "http" and not (plain_http or _is_loopback(host)):
        raise ConfigError(
            f"Expected https for images that leave this machine, got http://{host}.",
            hint="Use https, or --plain-http inside a network that nobody else can read.",
        )
    return Address(url.rstrip("/"), token, login)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
