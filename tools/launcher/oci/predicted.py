# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The container that an engine makes of an image and the options of its `run`, without the engine.

Only what comes into the workload document, which is what a launch digest is of. Compared with what engines write:
tests/launcher/oci/test_predicted.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.launcher.base.errors import UserError
from tools.launcher.bundle import image_config
from tools.launcher.bundle.image_config import Changes, Config
from tools.launcher.oci.container import Container, ContainerProcess, Mount, Resources
from tools.launcher.oci.filters import profiles
from tools.launcher.oci.home import in_passwd
from tools.launcher.oci.mounts import DOCKERS_SHM, PODMANS_SHM, SHM
from tools.launcher.oci.processes import plain, surviving
from tools.sev.workload.calls import Calls
from tools.sev.workload.document import CAPABILITIES, Rlimit
from tools.sev.workload.engines import ENGINES, Defaults

NAMES = {
    "docker-20.10": "docker-1",
    "docker": "docker-2",
    "podman-4.3": "podman-1",
    "podman": "podman-2",
}
"""What people call an engine, and the name of its defaults: without a number those that Debian 13 has."""
ALL = "all"
DEFAULT_SECCOMP, UNCONFINED = "default", "unconfined"
_NAME = "0" * 12
"""In the place of the beginning of a container's id."""
_IDS = "0" * 64
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PODMANS_TMPFS = ("rw", "rprivate", "nosuid", "nodev", "tmpcopyup")
_DOCKERS_TMPFS = ("nosuid", "nodev", "rprivate")
_DOCKERS_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_PODMANS_SYSCTLS = {"net.ipv4.ping_group_range": "0 0"}
_READ_ONLY_TMPFS = ("/run", "/tmp", "/var/tmp")  # noqa: S108  in the guest


@dataclass(frozen=True, kw_only=True)
class Volume:
    """`source`: a path or the name of a volume; what may be written is shared with the host."""

    source: str
    target: str
    write: bool


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What stands behind `run`, as values; None, or nothing: as the image and the engine have it.

    `seccomp` is "default", "unconfined", or what a file says. `memory` in bytes. `tmpfs`: by target, the options.
    """

    engine: str
    terminal: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    groups: tuple[str, ...] = ()
    directory: str | None = None
    entrypoint: str | None = None
    argv: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: Any = DEFAULT_SECCOMP
    unmasked: bool = False
    tmpfs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shm_size: int | None = None
    rlimits: Mapping[str, Rlimit] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[Volume, ...] = ()
    umask: int | None = None
    network: bool = True
    cpus: int | None = None
    memory: int | None = None


def container(image: Config, options: RunOptions, *, passwd: bytes, group: bytes, where: str) -> Container:
    """The container; `passwd` and `group` are the image's own files. UserError names the option or the image."""
    defaults = ENGINES[NAMES[options.engine]]
    podman = _is_podmans(options)
    changes = Changes(
        entrypoint=options.entrypoint,
        argv=options.argv,
        env=options.environment,
        directory=options.directory,
        user=options.user,
    )
    config = image_config.changed(image, changes)
    who = image_config.resolve(config, passwd=passwd, group=group, where=where)
    if not who.argv:
        raise UserError("names no command to run", where=where, hint="put one behind --")
    extra = tuple(image_config.group_id(name, group=group, where="--group-add") for name in options.groups)
    # podman leaves the own group of a root that nobody asked for out.
    own = () if podman and not config.user else (who.gid,)
    capabilities = _capabilities(options, defaults)
    added = set(options.cap_add) & capabilities if podman and who.uid != 0 else set()
    home = in_passwd(passwd, who.uid)
    process = ContainerProcess(
        argv=who.argv,
        environment=_environment(config, options, home=home),
        cwd=plain(who.directory),
        uid=who.uid,
        gid=who.gid,
        groups=tuple(sorted({*own, *who.groups, *extra})),
        umask=options.umask if options.umask is not None or not podman else 0o022,
        terminal=options.terminal,
        capabilities=surviving(
            bounding=capabilities, permitted=added or capabilities, inheritable=added, ambient=added, uid=who.uid
        ),
        rlimits=_rlimits(options, defaults),
        no_new_privileges=options.no_new_privileges,
    )
    return Container(
        version="1.2.0",
        process=process,
        root=Path("/nonexistent"),
        read_only_root=options.read_only,
        home=home,
        hostname=options.hostname or _NAME,
        domainname=options.domainname,
        mounts=_mounts(config, options),
        sysctls={**(_PODMANS_SYSCTLS if podman else _DOCKERS_SYSCTLS), **options.sysctls},
        resources=Resources(memory=options.memory, cpus=options.cpus),
        seccomp=_seccomp(options, capabilities),
        masked_paths=() if options.unmasked else defaults.masked_paths,
        read_only_paths=() if options.unmasked else defaults.read_only_paths,
    )


def _is_podmans(options: RunOptions) -> bool:
    return options.engine.startswith("podman")


def _environment(config: Config, options: RunOptions, *, home: str) -> tuple[str, ...]:
    """What the engine adds, then the image's and the options', which outweigh it."""
    found = {"PATH": _PATH, "HOSTNAME": options.hostname or _NAME}
    if _is_podmans(options):
        found.update(container="podman", HOME=home)
    if options.terminal or options.engine == "podman-4.3":
        found["TERM"] = "xterm"
    for entry in config.env:
        name, _, value = entry.partition("=")
        found[name] = value
    return tuple(f"{name}={value}" for name, value in found.items())


def _capabilities(options: RunOptions, defaults: Defaults) -> set[str]:
    if ALL in options.cap_add:
        raise UserError("--cap-add all: which ones these are, the engine's host decides", hint="name each")
    both = sorted(set(options.cap_add) & set(options.cap_drop))
    if both:
        raise UserError(f"--cap-add and --cap-drop: both have {both[0]}")
    base = set() if ALL in options.cap_drop else set(defaults.capabilities) - set(options.cap_drop)
    assert set(options.cap_add) <= set(CAPABILITIES)
    return base | set(options.cap_add)


def _seccomp(options: RunOptions, capabilities: set[str]) -> Calls | None:
    if options.seccomp == UNCONFINED:
        return None
    if options.seccomp == DEFAULT_SECCOMP:
        return profiles.of_engine(NAMES[options.engine], capabilities)
    return profiles.of_file(options.seccomp, capabilities, where="--security-opt seccomp")


def _rlimits(options: RunOptions, defaults: Defaults) -> tuple[Rlimit, ...]:
    found = {name: Rlimit(name=name, soft=soft, hard=hard) for name, soft, hard in defaults.rlimits}
    found.update(options.rlimits)
    return tuple(found[name] for name in sorted(found))


def _mounts(config: Config, options: RunOptions) -> tuple[Mount, ...]:
    """Those that come into the document; the guest's own are the same in every container."""
    podman = _is_podmans(options)
    found: dict[str, Mount] = {}

    def put(target: str, kind: str, source: str, *words: str) -> None:
        found[target] = Mount(
            target=target, kind=kind, source=source, options=words, where=f"--engine {options.engine}"
        )

    usual = PODMANS_SHM if podman else DOCKERS_SHM
    put(SHM, "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", f"size={options.shm_size or usual}")
    folder = f"/var/lib/containers/storage/overlay-containers/{_IDS}/userdata" if podman else f"/containers/{_IDS}"
    for name in ("hostname", "hosts", "resolv.conf"):
        # Without a network podman has no name server to write down.
        if name != "resolv.conf" or options.network or not podman:
            put(f"/etc/{name}", "bind", f"{folder}/{name}", "bind")
    if podman:
        put("/run/.containerenv", "bind", f"{folder}/.containerenv", "bind")
    if podman and options.read_only:
        for target in _READ_ONLY_TMPFS:
            put(target, "tmpfs", "tmpfs", *_PODMANS_TMPFS)
    for target in config.volumes:
        put(plain(f"/{target}"), "bind", f"/var/lib/engine/volumes/{_IDS}/_data", "rbind")
    for volume in options.volumes:
        put(volume.target, "bind", _source(volume), "rbind", "rw" if volume.write else "ro")
    for target, words in options.tmpfs.items():
        first = _PODMANS_TMPFS if podman else (*_DOCKERS_TMPFS, *(() if "exec" in words else ("noexec",)))
        put(target, "tmpfs", "tmpfs", *first, *words)
    if options.engine == "podman-4.3" and "/run" in found:
        # It does not write its file into what is mounted there.
        del found["/run/.containerenv"]
    return tuple(sorted(found.values(), key=lambda mount: (mount.target.count("/"), mount.target)))


def _source(volume: Volume) -> str:
    return volume.source if volume.source.startswith("/") else f"/var/lib/engine/volumes/{volume.source}/_data"
