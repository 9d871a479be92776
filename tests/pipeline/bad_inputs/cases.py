# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The table: what is broken, and what the one line must say. `old` None deletes the file."""

# ruff: noqa: E501 (a table reads best with one case a line)

from dataclasses import dataclass

GUEST = "recipes/guest.toml"
PRODUCTION = "recipes/profiles/production.toml"
SOURCES = "recipes/sources.toml"
OTHER_SERIES = "recipes/series/6.18.toml"
SOURCES_LOCK = "recipes/sources.lock"
TOOLCHAIN = "recipes/toolchain.toml"
TOOLCHAIN_LOCK = "recipes/toolchain.lock"
MANIFEST = "initramfs/manifest.toml"
SERIES = "kernel-patches/6.12/series"
PATCH = "kernel-patches/6.12/0001-virtio_ring-always-use-the-DMA-API-in-an-encrypted-guest.patch"
KERNEL = "recipes/kernel/linux-6.12.toml"
LISTS = "recipes/kernel/fragments/lists.toml"
OVMF = "recipes/firmware/ovmf.toml"
FRAGMENT = "recipes/kernel/fragments/virtio.config"
TEMPLATE = "recipes/runtime.toml.j2"
KATA = "recipes/kata/dropin.toml.j2"
JUDGED = "recipes/firmware/patches/debian.toml"
FIRMWARE_SERIES = "recipes/firmware/patches/series"


@dataclass(frozen=True, kw_only=True)
class Case:
    """`where` begins the line (file, and key or line number), `says` stands in it."""

    id: str
    file: str
    old: str | None
    new: bytes = b""
    where: str
    says: str
    command: str = "list"
    real: bool = False


def _case(file: str, old: str | None, new: str | bytes, *, at: str, says: str, **more: object) -> Case:
    where = f"{file}{at}"
    name = f"{file.rpartition('/')[2][:24]}{at}-{says}"
    data = new if isinstance(new, bytes) else new.encode()
    return Case(id=name, file=file, old=old, new=data, where=where, says=says, **more)  # type: ignore[arg-type]  # `more` is of several types


# fmt: off
# A value that people may change is not looked for: the wrong one is put before it, and the rest is a comment.
_GUEST = [
    _case(GUEST, None, "", at=": ", says="no such file; is the checkout complete?"),
    _case(GUEST, "schema = ", "schema = #", at=": ", says="is not TOML", real=True),
    _case(GUEST, "schema = ", b"# \xff\nschema = ", at=": ", says="is not UTF-8"),
    _case(GUEST, "vcpus = ", "vcpus = 1" + "0" * 5000 + "#", at=": ", says="is not TOML: Exceeds the limit"),
    _case(GUEST, "vcpus = ", "vcpus = 0x" + "f" * 5000 + "#", at=": machine.vcpus: ", says="is not in 1…255"),
    _case(GUEST, "migrate = ", "migrate = 0#", at=": sev.snp.policy.migrate: ", says="not an integer", real=True),
]
_PROFILES = [
    _case(PRODUCTION, None, "", at=": ", says="no such file; restore it"),
    _case(PRODUCTION, 'kernel = "', 'kernel = "nope"#"', at=": kernel: ", says="no recipes/kernel/nope.toml; ", real=True),
    _case(PRODUCTION, 'carry = "', 'carry = true#"', at=": carry: ", says="not a boolean"),
    _case(KERNEL, 'source = "', 'source = "lniux"#"', at=": source: ", says="no source 'lniux' in recipes/sources.toml; did you mean 'linux'? "),
    _case(KERNEL, 'series = "', 'series = "9.99"#"', at=": series: ", says="no kernel-patches/9.99/series; create"),
    _case(OTHER_SERIES, 'source = "', 'source = "lniux"#"', at=": source: ", says="no source 'lniux' in recipes/sources.toml; did you mean 'linux'? "),
    _case(OTHER_SERIES, 'fragments = ["', 'fragments = ["x', at=": fragments[0]: ", says="no recipes/kernel/fragments/xsince-6.18.config; did"),
    _case(LISTS, "guest = [", 'guest = ["bsae", ', at=": lists.guest[0]: ", says="did you mean 'base'? there are: "),
    _case(OVMF, 'size = "', 'size = "1M"#"', at=": size: ", says="is not one of: 256KB, 512KB"),
]
_LOCKS = [
    _case(SOURCES_LOCK, None, "", at=": ", says="no such file"),
    _case(SOURCES_LOCK, "schema = 1", "schema = 9", at=": schema: ", says="9 is not in 1…1"),
    _case(SOURCES_LOCK, 'sha256 = "', 'sha256 = "x', at=": source[0].sha256: ", says="is not a SHA-256", real=True),
    _case(SOURCES_LOCK, "size = ", "size = -", at=": source[0].size: ", says="is not in 1…"),
    _case(SOURCES_LOCK, 'archive = "debian"', 'archive = "ubuntu"', at=": source[0].archive: ", says="not one of"),
    _case(SOURCES_LOCK, 'path = "pool', 'path = "/pool', at=": source[0].path: ", says="plain relative path"),
    _case(SOURCES_LOCK, 'path = "pool/main', 'path = "pool/..', at=": source[0].path: ", says="is not a plain"),
    _case(SOURCES_LOCK, "licence = ", "license = ", at=": source[0].licence: ", says="missing; unknown key license"),
    Case(id="licence-of-a-lock", file=SOURCES_LOCK, old='licence = "', new=b'licence = "AND ', where=f"{SOURCES_LOCK}: ",
         says="its licence is AND ", command="_locks"),
    _case(SOURCES_LOCK, 'name = "edk2-debian"', 'name = "edk2"', at=": edk2: ", says="pinned twice; keep one entry"),
    _case(TOOLCHAIN_LOCK, None, "", at=": ", says="no such file"),
    _case(TOOLCHAIN_LOCK, 'suite = "trixie"', 'suite = "../x"', at=": suite: ", says="is not a Debian suite"),
    _case(TOOLCHAIN_LOCK, "[trees]", "[threes]", at=": threes: ", says="unknown key; known here: older, package, schema, suite, trees"),
    _case(TOOLCHAIN_LOCK, 'architecture = "', 'architecture = "m', at=": package[0].architecture: ", says="not one"),
    _case(TOOLCHAIN_LOCK, 'trees = ["', 'trees = ["x", "', at=": package[0].trees[0]: ", says="'x' is not a tree"),
    _case(TOOLCHAIN_LOCK, "_amd64.deb", "_arm64.deb", at=": package[0].path: ", says="is not a package file"),
    _case(TOOLCHAIN_LOCK, "[[package]]", "[[package", at=": ", says="is not TOML", real=True),
]
_WANTED = [
    _case(TOOLCHAIN, None, "", at=": ", says="no such file"),
    _case(TOOLCHAIN, '"bash"', '"Bash"', at=": trees.build.packages[0]: ", says="not a Debian package name"),
    _case(TOOLCHAIN, '"bash"', '"bc"', at=": trees.build.packages: ", says="names a package twice"),
    _case(TOOLCHAIN, '"var/tmp"', '"../tmp"', at=": layout.folders[", says="is not a plain path below the tree"),
    _case(TOOLCHAIN, "[trees.boot]", "[trees.Boot]", at=": trees.Boot: ", says="is not a tree name"),
    _case(SOURCES, None, "", at=": ", says="no such file"),
    _case(SOURCES, "[source.linux]", "[source.Linux]", at=": source.Linux: ", says="is not a name"),
    _case(SOURCES, 'kind = "debian-source"\npackage = "linux"', 'kind = "git"', at=": source.linux.kind: ",
          says="'git' is not one of: debian-source, pypi, https, file"),
    Case(id="stale-sources-lock", file=SOURCES, old='series = "6.12"', new=b'series = "6.13"',
         where=f"{SOURCES_LOCK}: linux: ", says="its series is 6.12, sources.toml asks for 6.13; run ./doit lock --only linux",
         command="_locks"),
    Case(id="stale-toolchain-lock", file=TOOLCHAIN, old='"bash", ', new=b"",
         where=f"{TOOLCHAIN_LOCK}: trees.build: ", says="was resolved for other packages", command="_locks"),
]
_MANIFEST = [
    _case(MANIFEST, None, "", at=": ", says="no such file"),
    _case(MANIFEST, 'path = "init"', 'path = "../init"', at=": entry[", says="path (../init): '../init' must not hold .",
          real=True),
    _case(MANIFEST, 'path = "proc"', 'path = "a/proc"', at=": entry: ", says="'a/proc' has no parent 'a'; list"),
    _case(MANIFEST, 'path = "proc"', 'path = "init"', at=": entry[", says=".path (init): 'init' stands twice"),
    _case(MANIFEST, "budget = ", "budget = 14.0#", at=": budget: ", says="must be an integer, not a float"),
]
_KERNEL = [
    _case(SERIES, "0001-", "1-", at=":", says="bad patch name '1-virtio"),
    Case(id="series-without-a-patch", file=SERIES, old="0001-", new=b"# 0001-", where=f"{PATCH}: ",
         says="not named in series; add or delete it"),
    _case(SERIES, ".patch\n", ".patch -p2\n", at=":", says="unexpected '-p2'"),
    Case(id="series-without-its-patch", file=PATCH, old=None, where=f"{SERIES}:",
         says="is missing or not a regular file"),
    _case(PATCH, "GPL-2.0-only", "MIT", at=": ", says="licence is 'MIT'; patches here are GPL-2.0-only"),
    _case(PATCH, "Upstream: ", "Up: ", at=": ", says="header field 'Upstream' is missing"),
    _case(PATCH, "\n---\ndiff", "\n\ndiff", at=": ", says="no line '---' between text and diff"),
    _case(PATCH, "@@ -251,6 +252,11 @@", "@@ -251,7 +252,11 @@", at=":", says="the hunk is not as long"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m", at=":", says="this kernel has no modules: use =y"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=n", at=":", says="write '# CONFIG_VIRTIO_PCI is not"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "VIRTIO_PCI=y", at=":", says="cannot read 'VIRTIO_PCI=y'; expected"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_MENU=y", at=":",
          says="CONFIG_VIRTIO_MENU is already set in recipes/kernel/fragments/virtio.config:"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", b"\xff", at=": ", says="fragment cannot be read"),
]
_FIRMWARE = [
    _case(JUDGED, "apply = true", "", at=": debian[0].apply: ", says="missing"),
    _case(JUDGED, 'reason = "', 'reason = ""\nx = "', at=": debian[0].reason: ", says="must not be empty"),
    _case(FIRMWARE_SERIES, "0001-", "../0001-", at=":", says="bad patch name"),
]
_DIGESTS = [
    _case(GUEST, 'cpu = "', 'cpu = "host"#"', at=": machine.cpu: ", says="CPU model 'host': its CPUID signature is not known",
          command="digests-production"),
    _case(GUEST, 'cpu = "', 'cpu = "EPYC-Milan-v9"#"', at=": machine.cpu: ", says="CPU model 'EPYC-Milan-v9'", command="digests-production"),
]
_TEMPLATE = [
    _case(TEMPLATE, "{{ guest.cpu | toml }}", "{{ guest.cqu | toml }}", at=":", says="has no attribute 'cqu'",
          command="runtime-production"),
    _case(TEMPLATE, "{% endfor -%}", "", at=":", says="for", command="runtime-production"),
    _case(TEMPLATE, "{{ guest.cpu | toml }}", "{{ guest.cpu }}", at=": ", says="gives no valid TOML",
          command="runtime-production"),
    _case("pyproject.toml", 'version = "0.1.0"', "version = 1", at=": project.version: ", says="must be a version"),
    _case(KATA, "{{ guest.vcpus }}", "{{ guest.cpus }}", at=":", says="has no attribute 'cpus'",
          command="dropins-kata"),
    _case(KATA, "{{ kernel_params | toml }}", "{{ kernel_params }}", at=": ", says="gives no valid TOML",
          command="dropins-kata"),
]
# fmt: on

CASES = [*_GUEST, *_PROFILES, *_LOCKS, *_WANTED, *_MANIFEST, *_KERNEL, *_FIRMWARE, *_DIGESTS, *_TEMPLATE]
