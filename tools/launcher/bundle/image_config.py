# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an image's config says is to run, as a plain value. OCI Image Format 1.1, "Image Configuration"."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.launcher.base.errors import UserError

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What engines set when an image does not."""

_WORDS_MAX = 4096
_ARCHITECTURE = "amd64"
_ID = re.compile(r"[0-9]{1,10}")
_ID_MAX = (1 << 32) - 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """As the image has it; `user` is not looked up yet."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = (PATH,)
    directory: str = "/"
    user: str = ""
    volumes: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What is wanted in place of what the image says, by `docker run`'s rules; None, or nothing: as the image has it.

    `entrypoint` "" takes the image's away. Either of them takes its Cmd away, as `argv` does.
    """

    entrypoint: str | None = None
    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    user: str | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """What is to run, with numbers for names."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]


def read(document: Any, *, where: str) -> Config:
    """The part of a config that decides what runs; UserError for another architecture, or what is of no use."""
    fields = _table(document, "the config", where=where)
    for key, wanted in (("architecture", _ARCHITECTURE), ("os", "linux")):
        if fields.get(key, wanted) != wanted:
            raise UserError(f"is an image for {key} {str(fields[key])[:40]!r}, not {wanted}", where=where)
    inner = _table(fields.get("config") or {}, "config", where=where)
    env = _words(inner, "Env", where=where)
    for entry in env:
        if not entry.partition("=")[0] or "=" not in entry:
            raise UserError(f"Env has an entry {entry[:40]!r}, which is no NAME=VALUE", where=where)
    if not any(entry.startswith("PATH=") for entry in env):
        env = (PATH, *env)
    directory = _word(inner, "WorkingDir", where=where) or "/"
    if not directory.startswith("/") or ".." in directory.split("/"):
        raise UserError(f"WorkingDir {directory[:100]!r} is no plain absolute path", where=where)
    rootfs = _table(fields.get("rootfs") or {}, "rootfs", where=where)
    return Config(
        entrypoint=_words(inner, "Entrypoint", where=where),
        command=_words(inner, "Cmd", where=where),
        env=_each_once(env),
        # The same folder has one name in a workload document.
        directory="/" + "/".join(part for part in directory.split("/") if part not in ("", ".")),
        user=_word(inner, "User", where=where),
        volumes=_volumes(inner, where=where),
        diff_ids=_words(rootfs, "diff_ids", where=where),
    )


def _each_once(entries: Sequence[str]) -> tuple[str, ...]:
    """A name that comes again has its later value, in its first place."""
    found: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        found[name] = value
    return tuple(f"{name}={value}" for name, value in found.items())


def changed(config: Config, changes: Changes) -> Config:
    """The config with the changes laid over it."""
    entrypoint, command = config.entrypoint, config.command
    if changes.entrypoint is not None:
        entrypoint, command = (changes.entrypoint,) if changes.entrypoint else (), ()
    env = (*config.env, *(f"{name}={value}" for name, value in changes.env.items()))
    return Config(
        entrypoint=entrypoint,
        command=changes.argv or command,
        env=_each_once(env),
        directory=config.directory if changes.directory is None else changes.directory,
        user=config.user if changes.user is None else changes.user,
        volumes=config.volumes,
        diff_ids=config.diff_ids,
    )


def resolve(config: Config, *, passwd: bytes, group: bytes, where: str) -> Process:
    """The config with the user's ids, from the image's own /etc/passwd and /etc/group, as engines look them up."""
    user, _, wanted_group = config.user.partition(":")
    entry = next((line for line in _lines(passwd, 4) if user and user in (line[0], line[2])), None)
    if user and not _ID.fullmatch(user) and entry is None:
        raise UserError(f"User {user[:40]!r} is not in the image's /etc/passwd", where=where)
    uid = _id(entry[2] if entry is not None else user or "0", "User", where=where)
    groups: list[int] = []
    if wanted_group:
        gid = group_id(wanted_group, group=group, where=where)
    else:
        gid = _id(entry[3], "User", where=where) if entry is not None else 0
        name = entry[0] if entry is not None else "root" if not user else None
        groups = sorted(
            {
                _id(line[2], "group", where=where)
                for line in _lines(group, 4)
                if name is not None and name in line[3].split(",")
            }
            - {gid}
        )
    env = config.env
    if not any(line.startswith("HOME=") for line in env):
        home = entry[5] if entry is not None and len(entry) > 5 and entry[5] else "/root" if uid == 0 else "/"
        env = (*env, f"HOME={home}")
    argv = (*config.entrypoint, *config.command)
    return Process(argv=argv, env=env, directory=config.directory, uid=uid, gid=gid, groups=tuple(groups))


def group_id(wanted: str, *, group: bytes, where: str) -> int:
    """The number of a group that is named, or a number itself, as engines look it up."""
    found = next((line for line in _lines(group, 3) if wanted in (line[0], line[2])), None)
    if found is None and not _ID.fullmatch(wanted):
        raise UserError(f"group {wanted[:40]!r} is not in the image's /etc/group", where=where)
    return _id(found[2] if found is not None else wanted, "group", where=where)


def _volumes(table: dict[str, Any], *, where: str) -> tuple[str, ...]:
    """The keys of an object whose values say nothing."""
    found = table.get("Volumes") or {}
    if not isinstance(found, dict) or len(found) > _WORDS_MAX:
        raise UserError("Volumes is no object", where=where)
    return tuple(sorted(path for path in found if _plain(path)))


def _lines(data: bytes, fields: int) -> list[list[str]]:
    # Only a line feed ends a line, as engines have it; str.splitlines() would find users in the middle of others.
    text = data.decode("utf-8", "replace")
    lines = (line.strip().split(":") for line in text.split("\n") if not line.startswith("#"))
    return [line for line in lines if len(line) >= fields]


def _id(text: str, what: str, *, where: str) -> int:
    if _ID.fullmatch(text) is None or int(text) > _ID_MAX:
        raise UserError(f"{what} has the id {text[:40]!r}", where=where)
    return int(text)


def _table(value: Any, what: str, *, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is no table", where=where)
    return value


def _word(table: dict[str, Any], key: str, *, where: str) -> str:
    value = table.get(key) or ""
    if not isinstance(value, str) or not _plain(value):
        raise UserError(f"{key} is no text", where=where)
    return value


def _words(table: dict[str, Any], key: str, *, where: str) -> tuple[str, ...]:
    value = table.get(key) or []
    if (
        not isinstance(value, list)
        or len(value) > _WORDS_MAX
        or not all(isinstance(w, str) and _plain(w) for w in value)
    ):
        raise UserError(f"{key} is no list of texts", where=where)
    return tuple(value)


def _plain(text: str) -> bool:
    """What can be handed to a program: no NUL, and characters only."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
