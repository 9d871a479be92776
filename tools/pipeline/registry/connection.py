# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Requests to one registry: TLS, who we are, redirects, and each failure in one line.

    request ── 401, WWW-Authenticate ─┬─ Basic:  user and password
                                      └─ Bearer: a token from the realm, for our repository only ── request again

What we are known by is sent to the registry and to the realm that it names, over TLS, and never along a redirect.
"""

import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import requests.auth
import requests.utils
import urllib3

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.registry import oci
from tools.pipeline.sources import transport
from tools.pipeline.sources.bounded import Adapter
from tools.sev.registry.login import Login
from tools.sev.registry.reference import Reference

_REDIRECTS = 5
_ANSWER_MAX = 64 << 10  # bytes of an error or a token that are read
_CLIENT = "sev-artifacts"
_PARAMETER = re.compile(r'([A-Za-z]+)="((?:[^"\\]|\\.)*)"')
_T = TypeVar("_T")
_AGAIN = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How registries are spoken to. Times are in seconds; `ca` is a PEM file that is believed instead of the host's."""

    plain_http: bool = False
    ca: Path | None = None
    connect: float = 10.0
    stall: float = 60.0
    rounds: int = 4
    first_pause: float = 0.5
    # How the user of this tool would say so.
    plainly: str = "--plain-http"
    authority: str = "--ca"


class Lost(Exception):  # noqa: N818 (what became of a request, named for what it means)
    """The connection broke, or the registry cannot now: asking again may help."""


class Unreachable(BuildError):  # noqa: N818 (as Lost)
    """It was Lost each time. Other errors are of one request: the next one may be answered well."""


class _Auth(requests.auth.AuthBase):
    """What we say of ourselves. Always given, or requests would look into ~/.netrc."""

    def __init__(self, value: str = "") -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


class Connection:
    """To the repository of one registry."""

    def __init__(self, place: Reference, options: Options, find_login: Callable[[str], Login]) -> None:
        self.options = options
        self.base = f"{'http' if options.plain_http else 'https'}://{place.host}"
        self.where = f"{place.host}/{place.name}"
        self._place = place
        self._find_login = find_login
        self._authorization = ""
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, Adapter(options.stall))
        if options.ca is not None:
            files.check_authorities(options.ca, f"{options.authority} {options.ca}")
        transport.check_proxies([self.base])

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def url(self, path: str) -> str:
        """Of something in the repository: `blobs/…`, `manifests/…`."""
        return f"{self.base}/v2/{self._place.name}/{path}"

    def patiently(self, work: Callable[[], _T]) -> _T:
        """Do it again when it is Lost, a few times; BuildError then."""
        pause = self.options.first_pause
        for left in reversed(range(self.options.rounds)):
            try:
                return work()
            except Lost as lost:
                if not left:
                    raise Unreachable(f"{lost} ({self.options.rounds} tries)", where=self.where) from None
            ambient.sleep(pause)
            pause *= 2
        raise AssertionError("there is at least one round")

    @contextmanager
    def request(
        self,
        method: str,
        url: str,
        *,
        good: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Callable[[], Any] | None = None,
    ) -> Iterator[requests.Response]:
        """The answer, one of `good`; else Lost when another try may help, or a BuildError with the registry's words.

        `body` gives what is sent, anew for each try: bytes, or something with a length that is iterated over.
        """
        try:
            response = self._ask(method, url, headers, body)
            with response:
                if response.status_code in good:
                    yield response
                elif response.status_code in _AGAIN:
                    raise Lost(f"{response.status_code} {response.reason}")
                else:
                    raise self._refusal(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._translate(error) from None

    def error(self, what: str, hint: str | None = None) -> BuildError:
        """That something of this repository is amiss."""
        return BuildError(what, where=self.where, hint=hint)

    def read(self, response: requests.Response, limit: int) -> bytes:
        """The body, which may have `limit` bytes; BuildError when it has more."""
        data = b"".join(self.chunks(response, limit + 1))
        if len(data) > limit:
            raise self.error(f"answers with more than {limit} bytes")
        return data

    @staticmethod
    def chunks(response: requests.Response, limit: int) -> Iterator[bytes]:
        """The body as it arrives, at most `limit` bytes of it."""
        while limit > 0 and (chunk := response.raw.read1(min(limit, 256 << 10))):
            limit -= len(chunk)
            yield chunk

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Callable[[], Any] | None
    ) -> requests.Response:
        response = self._send(method, url, headers, body)
        if response.status_code == 401 and self._is_ours(response.url):
            challenge = response.headers.get("WWW-Authenticate", "")
            response.close()
            self._authorization = self._answer(challenge)
            response = self._send(method, url, headers, body)
            if response.status_code == 401:
                response.close()
                raise self.error("does not accept the login", hint=f"log in anew: docker login {self._place.host}")
        return response

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Callable[[], Any] | None
    ) -> requests.Response:
        for _ in range(_REDIRECTS + 1):
            self._check(url)
            # identity: a compressed transfer would make Content-Length mean something else.
            response = self._session.request(
                method,
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": _CLIENT, **(headers or {})},
                data=body() if body else None,
                auth=_Auth(self._authorization if self._is_ours(url) else ""),
                timeout=(self.options.connect, self.options.stall),
                verify=str(self.options.ca) if self.options.ca else True,
                stream=True,
                allow_redirects=False,
            )
            target = self._session.get_redirect_target(response)
            if target is None or method not in {"GET", "HEAD"}:
                return response
            response.close()
            url = urllib.parse.urljoin(url, target)
        raise self.error("redirects without end")

    def _is_ours(self, url: str) -> bool:
        return urllib.parse.urljoin(url, "/") == f"{self.base}/"

    def _check(self, url: str) -> None:
        """TLS stays TLS, wherever a registry sends us."""
        scheme = urllib.parse.urlsplit(url).scheme
        if scheme not in ({"http", "https"} if self.options.plain_http else {"https"}):
            raise self.error(f"sends us to {scheme[:20]}:, which is not protected", hint="tell its operator")

    def _answer(self, challenge: str) -> str:
        """The Authorization header for a challenge (RFC 9110, 11.6.1)."""
        scheme, _, rest = challenge.partition(" ")
        parameters = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
        login = self._find_login(self._place.host)
        hint = f"log in first: docker login {self._place.host}"
        if scheme.lower() == "basic":
            if not login.user:
                raise self.error("wants to know who you are", hint=hint)
            return login.basic
        if scheme.lower() == "bearer" and parameters.get("realm"):
            return f"Bearer {self._token(parameters, login, hint)}"
        raise self.error(f"asks for a login of a kind that is not known ({scheme[:40]!r})")

    def _token(self, parameters: Mapping[str, str], login: Login, hint: str) -> str:
        realm = parameters["realm"]
        self._check(realm)
        fields = {"service": parameters.get("service", ""), "scope": f"repository:{self._place.name}:pull,push"}
        common: dict[str, Any] = {
            "timeout": (self.options.connect, self.options.stall),
            "verify": str(self.options.ca) if self.options.ca else True,
            "headers": {"User-Agent": _CLIENT},
            "allow_redirects": False,
            "stream": True,
        }
        if login.token:
            form = {**fields, "grant_type": "refresh_token", "refresh_token": login.token, "client_id": _CLIENT}
            response = self._session.post(realm, data=form, auth=_Auth(), **common)
        else:
            auth = _Auth(login.basic)
            response = self._session.get(realm, params=fields, auth=auth, **common)
        with response:
            if response.status_code in _AGAIN:
                raise Lost(f"{response.status_code} {response.reason}, for a token")
            if response.status_code != 200:
                raise self.error(f"gives no token: {response.status_code} {response.reason}", hint=hint)
            try:
                document = oci.parse(self.read(response, _ANSWER_MAX))
            except ValueError:
                document = {}
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self.error("answers with no token where one was asked for")
        return token

    def _refusal(self, response: requests.Response) -> BuildError:
        """In the registry's own words, if it has any (distribution specification, "Error Codes")."""
        words = ""
        try:
            entry = oci.parse(self.read(response, _ANSWER_MAX))["errors"][0]
            words = f": {str(entry['code'])[:60]}, {str(entry.get('message', ''))[:200]}"
        except (ValueError, LookupError, TypeError, AttributeError, BuildError):
            pass
        hint = f"log in as somebody who may: docker login {self._place.host}" if response.status_code == 403 else None
        return self.error(f"{response.status_code} {response.reason}{words}", hint=hint)

    def _translate(self, error: Exception) -> BuildError | Lost:
        if isinstance(error, requests.exceptions.SSLError):
            if "WRONG_VERSION_NUMBER" in str(error):
                hint = f"{self.options.plainly}, if nobody can listen or meddle on the way"
                return self.error("does not speak TLS", hint=hint)
            hint = f"{self.options.authority} FILE names a certificate authority"
            return self.error("its certificate was not accepted", hint=hint)
        if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
            return self.error("sends us to an invalid URL")
        return Lost(transport.describe(error))
