# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to one registry: TLS, who we are, where it may send us, and each failure in one line.

    GET ── 401, WWW-Authenticate ─┬─ Basic:  user and password
                                  └─ Bearer: a token from the realm, for reading our repository ── GET again

What we are known by goes to the registry, and to a realm on the same host or on one that the user named. Nobody else
is connected to: a redirect to a host that was not named is refused. Certificates are always checked.
"""

import http.client
import json
import re
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import TypeVar

from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.base.ui import NAME
from tools.launcher.pull.login import find
from tools.sev.errors import printable
from tools.sev.registry.login import NOBODY, Login
from tools.sev.registry.reference import Reference

_REDIRECTS = 5
_ANSWER_MAX = 64 << 10  # bytes of an error or a token that are read
_ROUNDS = 4
_CONNECT, _STALL = 10.0, 60.0  # seconds
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_AWAY = {301, 302, 303, 307, 308}
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_PARAMETER = re.compile(r'([A-Za-z]+)="((?:[^"\\]|\\.)*)"')
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a registry is spoken to: authorities to believe (PEM), no TLS, and hosts where it may send us."""

    ca: Path | None = None
    plain_http: bool = False
    hosts: tuple[str, ...] = ()


class Lost(Exception):  # noqa: N818 (what became of a request, named for what it means)
    """The connection broke, or the registry cannot now: asking again may help."""


class Connection:
    """To one repository. `pause` waits so many seconds before another try."""

    def __init__(self, place: Reference, options: Options, *, pause: Callable[[float], object]) -> None:
        if options.plain_http and _LOOPBACK.fullmatch(place.host) is None:
            hint = "127.0.0.1, [::1] or localhost; others must speak TLS"
            raise UserError("is for a registry on this machine only", where="--plain-http", hint=hint)
        self.place = place
        self._scheme = "http" if options.plain_http else "https"
        self._hosts = options.hosts
        self._context = None if options.plain_http else _context(options.ca)
        self._open: dict[str, http.client.HTTPConnection] = {}
        self._authorization = ""
        self._pause = pause

    def close(self) -> None:
        """Let go of everything."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def error(self, what: str, hint: str | None = None) -> CheckError:
        """That something of this repository is amiss."""
        return CheckError(what, where=self.place.where, hint=hint)

    def patiently(self, work: Callable[[], _T]) -> _T:
        """Do it again when it is Lost, a few times; CheckError then."""
        seconds = 0.5
        for left in reversed(range(_ROUNDS)):
            try:
                return work()
            except Lost as lost:
                if not left:
                    raise self.error(f"{lost} ({_ROUNDS} tries)") from None
            self._pause(seconds)
            seconds *= 2
        raise AssertionError("there is at least one round")

    @contextmanager
    def get(
        self, path: str, *, good: tuple[int, ...], headers: Mapping[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        """The answer of the repository at `path`, its status one of `good`; Lost, or CheckError in its own words."""
        url = f"{self._scheme}://{self.place.host}/v2/{self.place.name}/{path}"
        try:
            response = self._answered(url, headers or {}, good)
            yield response
            if not response.isclosed():
                # Not read to its end: the next request must not find the rest.
                self.close()
        except ssl.SSLCertVerificationError as error:
            self.close()
            hint = "--ca FILE names a certificate authority"
            raise self.error(f"its certificate was not accepted: {error.verify_message}", hint=hint) from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._lost(error) from None
        except BaseException:
            self.close()
            raise

    def _answered(self, url: str, headers: Mapping[str, str], good: tuple[int, ...]) -> HTTPResponse:
        response, own = self._follow(url, headers)
        # Only the registry itself may ask who we are: where it sends us for bytes is not told.
        if response.status == 401 and own and self._challenge(response):
            response, own = self._follow(url, headers)
            if response.status == 401 and own:
                raise self.error("does not accept the login", hint=self._log_in)
        if response.status in _AGAIN:
            raise Lost(f"{response.status} {response.reason}")
        if response.status not in good:
            raise self._refusal(response)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self.error("answers with a compression that was not asked for")
        return response

    def read(self, response: HTTPResponse, limit: int) -> bytes:
        """The body, at most `limit` bytes; CheckError when it has more."""
        data = response.read(limit + 1)
        if len(data) > limit:
            raise self.error(f"answers with more than {limit} bytes")
        length = content_length(response)
        if length is not None and len(data) != length:
            raise Lost("the connection ended early")
        return data

    @property
    def _log_in(self) -> str:
        return f"log in: docker login {self.place.host}"

    def _follow(self, url: str, headers: Mapping[str, str]) -> tuple[HTTPResponse, bool]:
        """The answer where no more redirects are, and whether it is the registry's own."""
        for _ in range(_REDIRECTS + 1):
            own = urllib.parse.urlsplit(url).netloc == self.place.host
            known = {"Authorization": self._authorization} if own and self._authorization else {}
            response = self._send("GET", url, {**headers, **known})
            target = response.headers.get("Location")
            if response.status not in _AWAY or target is None:
                return response, own
            self.read(response, _ANSWER_MAX)
            url = self._joined(url, target)
            self._check(url, "redirects us")
        raise self.error("redirects without end")

    def _joined(self, url: str, target: str) -> str:
        try:
            return urllib.parse.urljoin(url, target)
        except ValueError:
            raise self.error("redirects us to an invalid URL") from None

    def _check(self, url: str, what: str) -> None:
        """That we may go where the registry sends us."""
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            raise self.error(f"{what} to an invalid URL") from None
        if not url.isascii():
            raise self.error(f"{what} to an invalid URL")
        if parts.scheme != self._scheme:
            raise self.error(f"{what} to {printable(parts.scheme)[:20]}:, which is not what it speaks")
        if parts.netloc not in {self.place.host, *self._hosts}:
            host = printable(parts.netloc.rpartition("@")[2])[:200]
            raise self.error(f"{what} to {host}", hint="if that is right, allow it: --allow-host HOST")

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        connection = self._open.get(parts.netloc)
        if connection is None:
            connection = self._connect(parts)
            self._open[parts.netloc] = connection
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        # identity: a compressed transfer would make Content-Length mean something else.
        connection.request(
            method, target, body=body, headers={"Accept-Encoding": "identity", "User-Agent": NAME, **headers}
        )
        return connection.getresponse()

    def _connect(self, parts: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise self.error("is sent to an invalid port") from None
        if self._context is None:
            connection = http.client.HTTPConnection(host, port, timeout=_CONNECT)
        else:
            connection = http.client.HTTPSConnection(host, port, timeout=_CONNECT, context=self._context)
        try:
            connection.connect()
        except UnicodeError:
            # Python's: a part of the name is empty, or too long.
            raise self.error(f"{printable(host)[:200]!r} is no name of a host") from None
        connection.sock.settimeout(_STALL)
        return connection

    def _challenge(self, response: HTTPResponse) -> bool:
        """Answer a challenge (RFC 9110, 11.6.1); whether there is something to say."""
        scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
        self.read(response, _ANSWER_MAX)
        parameters = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
        login = find(self.place.host)
        if scheme.lower() == "basic":
            if not login.user:
                raise self.error("wants to know who you are", hint=self._log_in)
            self._authorization = login.basic
            return True
        if scheme.lower() == "bearer" and parameters.get("realm"):
            self._authorization = f"Bearer {self._token(parameters, login)}"
            return True
        raise self.error(f"asks for a login of a kind that is not known ({printable(scheme)[:40]!r})")

    def _token(self, parameters: Mapping[str, str], login: Login) -> str:
        realm = parameters["realm"]
        self._check(realm, "sends us for a token")
        fields = {"service": parameters.get("service", ""), "scope": f"repository:{self.place.name}:pull"}
        if login.token:
            form = {**fields, "grant_type": "refresh_token", "refresh_token": login.token, "client_id": NAME}
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._send("POST", realm, kind, urllib.parse.urlencode(form).encode())
        else:
            who = {"Authorization": login.basic} if login != NOBODY else {}
            glue = "&" if "?" in realm else "?"
            response = self._send("GET", f"{realm}{glue}{urllib.parse.urlencode(fields)}", who)
        data = self.read(response, _ANSWER_MAX)
        if response.status in _AGAIN:
            raise Lost(f"{response.status} {response.reason}, for a token")
        if response.status != 200:
            raise self.error(f"gives no token: {response.status} {printable(response.reason)}", hint=self._log_in)
        try:
            document = json.loads(data)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self.error("answers with no token where one was asked for")
        return token

    def _refusal(self, response: HTTPResponse) -> CheckError:
        """In the registry's own words, if it has any (distribution specification, "Error Codes")."""
        words = ""
        try:
            entry = json.loads(self.read(response, _ANSWER_MAX))["errors"][0]
            words = f": {str(entry['code'])[:60]}, {str(entry.get('message', ''))[:200]}"
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, CheckError, Lost):
            pass
        hint = self._log_in if response.status == 403 else None
        return self.error(f"{response.status} {response.reason}{words}", hint=hint)

    def _lost(self, error: Exception) -> Exception:
        if isinstance(error, ssl.SSLError) and "WRONG_VERSION_NUMBER" in str(error):
            return self.error("does not speak TLS", hint="--plain-http, if it is on this machine")
        if isinstance(error, http.client.HTTPException):
            return Lost(f"answers with no HTTP ({type(error).__name__})")
        if isinstance(error, TimeoutError):
            return Lost("does not answer")
        return Lost(str(getattr(error, "strerror", None) or error or "the connection broke"))


def content_length(response: HTTPResponse) -> int | None:
    """What the header says; None where it says no number that a body can have."""
    text = response.headers.get("Content-Length", "")
    # Python converts no text of thousands of digits: ValueError.
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        what = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror or "cannot be read"
        raise UserError(what, where=f"--ca {ca}", hint="name a PEM file of certificates") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
