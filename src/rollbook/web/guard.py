"""Who is let in, and what browsers are told about whatever they get.

A page that another site has opened in the same browser can send requests here. So a request counts
only if it names this server as its host, doesn't come from another origin, and has the token: in a
cookie that is never sent along with requests of other sites, or in a header.
"""

import hmac
import ipaddress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollbook.errors import ForbiddenError
from rollbook.model.documents import to_json
from rollbook.web.assets import ASSETS_PATH
from rollbook.web.rendering import rendered

API_PATH = "/api/"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_LONGEST_FORM = 64 << 10  # bytes
_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "content-security-policy": "; ".join(map(" ".join, _POLICY.items())),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Door(msgspec.Struct, frozen=True):
    """Where the server is reached, and with which token.

    ``host`` is what it listens on: an address, or a name.  ``token`` is at least 16 characters.
    """

    host: str
    port: int
    token: str

    @property
    def link(self) -> str:
        """The address that lets its reader in."""
        here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        name = f"[{here}]" if ":" in here else here
        return f"http://{name}:{self.port}/?{urlencode({'token': self.token})}"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        address = _address(self.host)
        return self.host in _LOOPBACK if address is None else address.is_loopback

    @property
    def cookie(self) -> str:
        """The name of the cookie: cookies don't know ports, and several servers may run."""
        return f"rollbook-{self.port}"

    @property
    def form_token(self) -> str:
        """What the server's own forms have with them, and no other site can know."""
        return hmac.new(self.token.encode(), b"form", "sha256").hexdigest()

    def is_named(self, host: str) -> bool:
        """Say whether a Host header means this server.

        Only names can be made to point elsewhere, so addresses are fine, if other machines are.
        """
        name, _, port = host.rpartition(":")
        if not name or host.endswith("]"):  # as browsers leave the usual port out
            name, port = host, "80"
        if port != str(self.port):
            return False
        if name in _LOOPBACK or name == self.host:
            return True
        return not self.is_loopback and _address(name.strip("[]")) is not None

    def is_token(self, given: str) -> bool:
        """Compare a token, in the same time whatever it is."""
        return hmac.compare_digest(given.encode(), self.token.encode())


class Guard:
    """An ASGI application in front of another one: refuses, lets in by the link, sets headers."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or have it answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._answer(scope) or self._app
        await answer(scope, receive, send_with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Give the answer to what isn't let through."""
        headers = Headers(scope=scope)
        path = scope["path"]
        if refusal := self._refusal(scope, headers):
            return _refused(path, 403, refusal)
        if path.startswith(ASSETS_PATH):
            return None  # as they are in every installation
        query = parse_qsl(scope["query_string"].decode("latin-1"))
        given = dict(query).get("token")
        if given is not None and not path.startswith(API_PATH):
            if self._door.is_token(given):
                return self._welcome(path, [pair for pair in query if pair[0] != "token"])
        elif self._is_let_in(path, headers):
            return None
        return _refused(path, 401, "Open the link that `rollbook serve` has printed.")

    def _refusal(self, scope: Scope, headers: Headers) -> str:
        host = headers.get("host", "")
        if not self._door.is_named(host):
            return f"This server has another name than {host[:100]!r}."
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "Pages of another origin get nothing here."
        site = headers.get("sec-fetch-site", "none")
        opens_page = scope["method"] == "GET" and headers.get("sec-fetch-dest") == "document"
        if site not in ("none", "same-origin") and not opens_page:
            return "Pages of another site get nothing here."
        return ""

    def _is_let_in(self, path: str, headers: Headers) -> bool:
        if path.startswith(API_PATH):
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() == "bearer" and self._door.is_token(given):
                return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._door.cookie)
        except CookieError:
            return False
        return cookie is not None and self._door.is_token(cookie.value)

    def _welcome(self, path: str, query: list[tuple[str, str]]) -> Response:
        """Set the cookie, and go on without the token in the address.

        By a page, not by a redirect: a browser sends such a cookie only where this site leads.
        """
        address = "/" + quote(path.lstrip("/"))
        page = rendered(
            "welcome.html.jinja", address=f"{address}?{urlencode(query)}" if query else address
        )
        response = HTMLResponse(page, headers={"referrer-policy": "no-referrer"})
        response.set_cookie(self._door.cookie, self._door.token, httponly=True, samesite="strict")
        return response


async def read_form(request: Request, door: Door) -> dict[str, str]:
    """Read the form that a request has sent.

    Errors: ForbiddenError, unless it is one of the server's own, in one of its pages.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LONGEST_FORM:
            raise ForbiddenError("the form is too long")
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if "origin" not in request.headers or not hmac.compare_digest(
        form.get("form_token", "").encode(), door.form_token.encode()
    ):
        raise ForbiddenError("the form is out of date", hint="go back, reload the page, try again")
    return form


def error_response(path: str, status: int, code: str, message: str) -> Response:
    """Answer that something failed: as JSON to programs, as a page to people."""
    if path.startswith(API_PATH):
        error = to_json({"error": {"code": code, "message": message}})
        return Response(error, status, media_type="application/json")
    return HTMLResponse(rendered("error.html.jinja", status=status, message=message), status)


def _refused(path: str, status: int, message: str) -> Response:
    code = "unauthorized" if status == 401 else "forbidden"  # noqa: PLR2004 - one of two
    response = error_response(path, status, code, message)
    if status == 401:  # noqa: PLR2004
        response.headers["www-authenticate"] = "Bearer"
    return response


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
