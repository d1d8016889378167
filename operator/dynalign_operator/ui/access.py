"""Who may ask the page's server for what. Pure: values of a request in, a refusal or nothing out.

The server is on loopback, which every program of the machine and every page in the browser reaches. It answers
- only under a name of loopback: a page of another site whose name leads here (DNS rebinding) sends that name as Host;
- only who has opened the address with the token, and has the cookie since;
- only its own page: `Sec-Fetch-Site` tells pages on other ports of this machine, which share the cookie, from it;
- changes only with the page's own `Origin` and a second token, which is in the page and in no cookie.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

TOKEN_FIELD: Final = "token"  # noqa: S105 - a name
FORM_HEADER: Final = "X-Dynalign-Token"
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CHANGING: Final = "POST"
_METHODS: Final = frozenset({"GET", "HEAD", _CHANGING})
_OWN: Final = frozenset({"same-origin", "none"})
"""Values of Sec-Fetch-Site of the page itself and of an address that a person has typed or opened."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers of every answer. The plotting library sets styles of its own elements, which no nonce can allow."""
REPORT_POLICY: Final = (
    "sandbox allow-scripts allow-modals; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'none'"
)
"""Policy of a report: whoever wrote the file, it is of another origin than the page and can send nothing."""


@dataclass(frozen=True)
class Keys:
    """Secrets of one process."""

    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Part of the address that is printed."""
    opening: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Part of the address that the browser is started with, where other users of the machine see it: good once."""
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Value of the cookie."""
    form: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    """Sent by the page with every change."""


@dataclass(frozen=True)
class Asked:
    """What a request says of itself; absent parts are empty."""

    method: str = "GET"
    path: str = "/"
    host: str = ""
    origin: str = ""
    fetch_site: str = ""
    cookie: str = ""
    token: str = ""
    """Field of the address."""
    form: str = ""
    """Header of a change."""


@dataclass(frozen=True)
class Refusal:
    """An answer to who may not have what was asked for."""

    status: HTTPStatus
    sentence: str


def opens(asked: Asked, keys: Keys) -> bool:
    """Whether the request opens the page with the printed token; the one that the browser got is counted elsewhere."""
    return asked.path == "/" and _same(asked.token, keys.token)


def refuse(asked: Asked, keys: Keys, *, opened: bool = False) -> Refusal | None:
    """Why the request is not answered; None for one that is. `opened`: it came with a token that is still good."""
    if _host_name(asked.host) not in _LOOPBACK:
        return Refusal(HTTPStatus.FORBIDDEN, "This server answers under 127.0.0.1 and localhost only.")
    if asked.method not in _METHODS:
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and POST are answered.")
    if opened and asked.method != _CHANGING:
        return None
    return _refuse_stranger(asked, keys)


def _refuse_stranger(asked: Asked, keys: Keys) -> Refusal | None:
    """Why a request is not one of the page that was opened with the token."""
    if asked.fetch_site and asked.fetch_site not in _OWN:
        return Refusal(HTTPStatus.FORBIDDEN, "Only the page itself may ask for this.")
    if not _same(asked.cookie, keys.session):
        return Refusal(HTTPStatus.UNAUTHORIZED, "Open the address that `dynalign ui` printed; its token is missing.")
    if asked.method == _CHANGING and not (asked.origin == f"http://{asked.host}" and _same(asked.form, keys.form)):
        return Refusal(HTTPStatus.FORBIDDEN, "Changes come from the page itself only. Load it again.")
    return None


def cookie_name(port: int) -> str:
    """Name of the cookie: ports share cookies, and several pages may be served."""
    return f"dynalign-ui-{port}"


def _same(given: str, wanted: str) -> bool:
    return bool(given) and compare_digest(given.encode(errors="replace"), wanted.encode())


def _host_name(host: str) -> str:
    """The name in a Host header, without its port, which a tunnel may have changed; empty where it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return ""
    return (parts.hostname or "") if parts.netloc == host and "@" not in host else ""
