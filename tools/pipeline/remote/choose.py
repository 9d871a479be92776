# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From SEV_ARTIFACTS_REMOTE to a remote.

HOST[:PORT]/NAME                 a repository of a registry; with http:// before it, without TLS
grpcs://HOST:PORT[/INSTANCE]     a Remote Execution API service; grpc:// without TLS
"""

import functools
import threading
from pathlib import Path

from tools.pipeline.base import ambient
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.remote import Remote
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.registry import reference
from tools.pipeline.remote import config
from tools.pipeline.remote.config import Config
from tools.pipeline.remote.reapi import address
from tools.pipeline.remote.shared import Shared
from tools.pipeline.sign import keys
from tools.pipeline.sign.keys import Signer

_PLAIN = "http://"
_FORM = "expected HOST[:PORT]/NAME, for example registry.example/team/cache"


def remote(text: str, *, cas: Cas, folder: Path, path: Path | None = None) -> Remote:
    """What `text` names, with the user's remote.toml, or the one at `path`. UserError for what is wrong in either.

    `folder` is for what a service needs to keep, below build/.
    """
    if address.is_service(text):
        return _service(text, cas=cas, folder=folder, path=path)
    if ambient.remote_execute():
        hint = f"name a service in {ambient.REMOTE}: grpcs://HOST:PORT"
        raise UserError("a registry runs nothing", where=ambient.REMOTE_EXECUTE, hint=hint)
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in {"http", "https"}:
        raise UserError(
            f"{scheme[:20]}:// is not known", where=ambient.REMOTE, hint="HOST/NAME of a registry, grpcs://HOST:PORT"
        )
    place = reference.parse(rest if separator else text, where=ambient.REMOTE, form=_FORM)
    if place.tag or place.digest:
        raise UserError("has a tag or a digest", where=ambient.REMOTE, hint="name the repository alone: HOST/NAME")
    chosen = config.load(path)
    plain = text.startswith(_PLAIN)
    if plain and chosen.ca:
        raise _without_tls(_PLAIN, "https://", f"{chosen.path}: registry.ca")
    return Shared(place=place, config=chosen, cas=cas, signer=signer(chosen), plain_http=plain)


def _without_tls(scheme: str, better: str, where: str) -> UserError:
    """Who names authorities wants to know whom he speaks with: one letter less must not undo that in silence."""
    what = f"{ambient.REMOTE} is {scheme}…, without TLS: no authority would be asked"
    return UserError(what, where=where, hint=f"write {better}, or take this out")


def _service(text: str, *, cas: Cas, folder: Path, path: Path | None) -> Remote:
    execute = ambient.remote_execute()
    # Who only executes there shares nothing: he needs no file.
    chosen = config.load(path, service=True, shares=not execute)
    place = address.parse(text, ca=chosen.service_ca)
    if place.ca and not place.secure:
        raise _without_tls("grpc://", "grpcs://", f"{chosen.path}: service.ca")
    try:
        from tools.pipeline.remote.reapi.service import Service, Settings  # noqa: PLC0415 (an optional dependency)
    except ImportError as error:
        hint = "./doit installs it when the variable is set: call it by its name"
        raise UserError(
            f"needs a package that is not installed ({error.name})", where=ambient.REMOTE, hint=hint
        ) from None
    settings = Settings(
        builders={name: builder.public for name, builder in chosen.builders.items()},
        name=chosen.name,
        signer=signer(chosen),
        execute=execute,
        share=chosen.share,
        platform=chosen.platform,
        cached=chosen.cached,
    )
    return Service(place, settings, cas=cas, folder=folder)


class _Lazy:
    """A key that is looked for once: a token is asked, and for its PIN, only when something is to be signed."""

    def __init__(self, chosen: Config) -> None:
        self._lock = threading.Lock()
        self._load = functools.cache(
            lambda: keys.load(chosen.push, root=chosen.path.parent, where=_where(chosen)),
        )

    def __call__(self) -> Signer:
        with self._lock:
            return self._load()


def signer(chosen: Config) -> _Lazy | None:
    """What signs results that are sent; UserError for a key file that cannot be used, or a URI that names no key."""
    if not chosen.push:
        return None
    found = _Lazy(chosen)
    if not keys.is_token(chosen.push, _where(chosen)):
        found()
    return found


def _where(chosen: Config) -> str:
    return f"{chosen.path}: push.key"
