# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The table: what is broken, and what the one line must say. `old` None deletes the file."""

# ruff: noqa: E501 (a table reads best with one case a line)

from dataclasses import dataclass

GUEST = "recipes/guest.toml"
PRODUCTION = "recipes/profiles/production.toml"
SOURCES = "recipes/sources.toml"
SOURCES_LOCK = "recipes/sources.lock"
TOOLCHAIN = "recipes/toolchain.toml"
TOOLCHAIN_LOCK = "recipes/toolchain.lock"
MANIFEST = "initramfs/manifest.toml"
SERIES = "kernel-patches/6.12/series"
PATCH = "kernel-patches/6.12/0001-virtio_ring-always-use-the-DMA-API-in-an-encrypted-guest.patch"
FRAGMENT = "recipes/kernel/virtio.config"
TEMPLATE = "recipes/runtime.toml.j2"
KATA = "recipes/kata/dropin.toml.j2"
JUDGED = "recipes/firmware/edk2-patches.toml"
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
_GUEST = [
    _case(GUEST, None, "", at=": ", says="no such file; is the checkout complete?"),
    _case(GUEST, "schema = 1", "schema = ", at=": ", says="is not TOML", real=True),
    _case(GUEST, "schema = 1", b"schema = 1 # \xff", at=": ", says="is not UTF-8"),
    _case(GUEST, "schema = 1", "schema = 2", at=": schema: ", says="2 is not in 1…1"),
    _case(GUEST, "schema = 1", "schema = 1" + "0" * 5000, at=": ", says="is not TOML: Exceeds the limit"),
    _case(GUEST, "vcpus = 1", "vcpus = '1'", at=": machine.vcpus: ", says="must be an integer, not a string"),
    _case(GUEST, "vcpus = 1", "vcpus = 0x" + "f" * 5000, at=": machine.vcpus: ", says="is not in 1…255"),
    _case(GUEST, "vcpus = 1", "vcpu = 1", at=": machine.vcpus: ", says="missing; add it"),
    _case(GUEST, '"512M"', '"lots"', at=": machine.memory: ", says='"lots" is no memory size'),
    _case(GUEST, 'mode = "snp"', 'mode = "tdx"', at=": sev.mode: ", says="is not one of: snp, sev-es, sev"),
    _case(GUEST, "migrate = false", "migrate = 0", at=": sev.snp.policy.migrate: ", says="not an integer", real=True),
    _case(GUEST, "smt = true", "smp = true", at=": sev.snp.policy.smt: ", says="missing; add it (true or false)"),
    _case(GUEST, "cxl = false", "cxl = false\ntdx = true", at=": sev.snp.policy.tdx: ", says="unknown key; known here: aes"),
    _case(GUEST, '"0.0"', '"1.51.7"', at=": sev.snp.policy.min-abi: ", says="min-abi is a version from 0.0 to 255.255, not '1.51.7'"),
    _case(GUEST, '"0.0"', '"256.0"', at=": sev.snp.policy.min-abi: ", says="min-abi is a version from 0.0 to 255.255, not '256.0'"),
    _case(GUEST, '"0.0"', "0.0", at=": sev.snp.policy.min-abi: ", says="must be a version such as 1.51, not a float"),
    _case(GUEST, "debug = false", "debug = true", at=": sev.snp.policy.debug: ", says="must be false for production profiles"),
    _case(GUEST, "[sev.sev-es.policy]", "[sev.sev-es.polizy]", at=": sev.sev-es.policy: ", says="missing; add it (a table)"),
    _case(GUEST, "[sev.sev.policy]", "[sev.sev]\npolicy = 1\n[x]", at=": sev.sev.policy: ", says="must be a table, not an"),
    _case(GUEST, '"sev-artifacts"', '"sev artifacts"', at=": sev.snp.id-block.family-id: ", says="neither 1 to 16 ASCII"),
    _case(GUEST, '"guest"', '"' + "0" * 31 + '"', at=": sev.snp.id-block.image-id: ", says="nor 32 hexadecimal digits"),
    _case(GUEST, "svn = 0", "svn = 4294967296", at=": sev.snp.id-block.svn: ", says="is not in 0…4294967295"),
    _case(GUEST, "svn = 0", 'svn = "0"', at=": sev.snp.id-block.svn: ", says="must be an integer, not a string"),
    _case(GUEST, "kernel-hashes = true", "kernel-hashes = false", at=": sev.kernel-hashes: ", says="without it"),
    _case(GUEST, "rng = true", "rng = true\nx.y = 1", at=": devices.x: ", says="unknown key; known here: agent"),
]
_PROFILES = [
    _case(PRODUCTION, None, "", at=": ", says="no such file; restore it"),
    _case(PRODUCTION, "[kernel]", "[kernal]", at=": kernel: ", says="missing; add it (a table)"),
    _case(PRODUCTION, "[kernel]", "[kernel]\nmodules = true", at=": kernel.modules: ", says="unknown key"),
    _case(PRODUCTION, '"linux"', '"lniux"', at=": kernel.source: ", says="is not pinned; pinned: edk2", real=True),
    _case(PRODUCTION, '"6.12"', '"6.99"', at=": kernel.series: ", says="no kernel-patches/6.99/series; create"),
    _case(PRODUCTION, '"base"', '"bsae"', at=": kernel.fragments[0]: ", says="no recipes/kernel/bsae.config"),
    _case(PRODUCTION, '"base"', '"base", "base"', at=": kernel.fragments[1]: ", says="'base' stands twice"),
    _case(PRODUCTION, '"base"', "1", at=": kernel.fragments[0]: ", says="must be a non-empty string, not an int"),
    _case(PRODUCTION, '"1MB"', '"1M"', at=": firmware.size: ", says="is not one of: 1MB, 2MB, 4MB"),
    _case(PRODUCTION, 'carry = "beside"', "carry = true", at=": initramfs.carry: ", says="not a boolean"),
]
_LOCKS = [
    _case(SOURCES_LOCK, None, "", at=": ", says="no such file"),
    _case(SOURCES_LOCK, "schema = 1", "schema = 9", at=": schema: ", says="9 is not in 1…1"),
    _case(SOURCES_LOCK, 'sha256 = "', 'sha256 = "x', at=": source[0].sha256: ", says="is not a SHA-256", real=True),
    _case(SOURCES_LOCK, "size = ", "size = -", at=": source[0].size: ", says="is not in 1…"),
    _case(SOURCES_LOCK, 'archive = "debian"', 'archive = "ubuntu"', at=": source[0].archive: ", says="not one of"),
    _case(SOURCES_LOCK, 'path = "pool', 'path = "/pool', at=": source[0].path: ", says="plain relative path"),
    _case(SOURCES_LOCK, 'path = "pool/main', 'path = "pool/..', at=": source[0].path: ", says="is not a plain"),
    _case(SOURCES_LOCK, "licence = ", "license = ", at=": source[0].licence: ", says="missing; add it"),
    _case(SOURCES_LOCK, 'licence = "', 'licence = "AND ', at=": source[0].licence: ", says="SPDX license expression"),
    _case(SOURCES_LOCK, 'name = "edk2-debian"', 'name = "edk2"', at=": edk2: ", says="pinned twice; keep one entry"),
    _case(SOURCES_LOCK, 'name = "edk2-debian"', 'name = "edk3"', at=": ", says="'edk2-debian' is not pinned; run"),
    _case(TOOLCHAIN_LOCK, None, "", at=": ", says="no such file"),
    _case(TOOLCHAIN_LOCK, 'suite = "trixie"', 'suite = "../x"', at=": suite: ", says="is not a Debian suite"),
    _case(TOOLCHAIN_LOCK, "[trees]", "[threes]", at=": threes: ", says="unknown key; known here: package, schema, suite, trees"),
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
    _case(SOURCES, None, "", at=": ", says="no such file", command="fetch:sources"),
    _case(SOURCES, "[source.linux]", "[source.Linux]", at=": source.Linux: ", says="is not a name",
          command="fetch:sources"),
    _case(SOURCES, 'kind = "debian-source"\npackage = "linux"', 'kind = "git"', at=": source.linux.kind: ",
          says="'git' is not one of: debian-source, https, file", command="fetch:sources"),
    Case(id="stale-sources-lock", file=SOURCES, old='version = "6.12.107-1"', new=b'version = "6.12.108-1"',
         where=f"{SOURCES_LOCK}: linux: ", says="differs from what sources.toml asks for; run ./doit lock",
         command="fetch:sources"),
    Case(id="stale-toolchain-lock", file=TOOLCHAIN, old='"bash", ', new=b"",
         where=f"{TOOLCHAIN_LOCK}: trees.build: ", says="was resolved for other packages", command="fetch:sources"),
]
_MANIFEST = [
    _case(MANIFEST, None, "", at=": ", says="no such file"),
    _case(MANIFEST, 'path = "init"', 'path = "../init"', at=": entry[0].path: ", says="must not hold . or ..",
          real=True),
    _case(MANIFEST, 'mode = "0755"', "mode = 755", at=": entry[0].mode: ", says="an octal mode such as 0755"),
    _case(MANIFEST, '"agent"', '"agnet"', at=": entry[0].artifact: ", says="'agnet' is not one of: agent"),
    _case(MANIFEST, 'artifact = "agent"', 'file = "agent/nothing"', at=": entry[0].file: ", says="no file initramfs"),
    _case(MANIFEST, 'artifact = "agent"', 'file = "/etc/passwd"', at=": entry[0].file: ", says="leaves initramfs/"),
    _case(MANIFEST, 'path = "proc"', 'path = "a/proc"', at=": entry: ", says="'a/proc' has no parent 'a'; list"),
    _case(MANIFEST, 'path = "proc"', 'path = "init"', at=": entry[3].path: ", says="'init' stands twice"),
    _case(MANIFEST, "budget = 14_000_000", "budget = 14.0", at=": budget: ", says="must be an integer, not a float"),
]
_KERNEL = [
    _case(SERIES, "0001-", "1-", at=":", says="bad patch name '1-virtio", command="source:linux"),
    Case(id="series-without-a-patch", file=SERIES, old="0001-", new=b"# 0001-", where=f"{PATCH}: ",
         says="not named in series; add or delete it", command="source:linux"),
    _case(SERIES, ".patch\n", ".patch -p2\n", at=":", says="unexpected '-p2'", command="source:linux"),
    Case(id="series-without-its-patch", file=PATCH, old=None, where=f"{SERIES}:",
         says="is missing or not a regular file", command="source:linux"),
    _case(PATCH, "GPL-2.0-only", "MIT", at=": ", says="licence is 'MIT'; patches here are GPL-2.0-only", command="source:linux"),
    _case(PATCH, "Upstream: ", "Up: ", at=": ", says="header field 'Upstream' is missing", command="source:linux"),
    _case(PATCH, "\n---\ndiff", "\n\ndiff", at=": ", says="no line '---' between text and diff", command="source:linux"),
    _case(PATCH, "diff --git a/drivers", "diff --git a/../drivers", at=":", says="is not a plain path",
          command="source:linux"),
    _case(PATCH, "@@ -251,6 +252,11 @@", "@@ -251,7 +252,11 @@", at=":", says="shorter or longer",
          command="source:linux"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m", at=":", says="this kernel has no modules: use =y",
          command="kernel_config:production"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=n", at=":", says="write '# CONFIG_VIRTIO_PCI is not",
          command="kernel_config:production"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "VIRTIO_PCI=y", at=":", says="cannot read 'VIRTIO_PCI=y'; expected",
          command="kernel_config:production"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_MENU=y", at=":",
          says="CONFIG_VIRTIO_MENU is already set in recipes/kernel/virtio.config:",
          command="kernel_config:production"),
    _case(FRAGMENT, "CONFIG_VIRTIO_PCI=y", b"\xff", at=": ", says="fragment cannot be read",
          command="kernel_config:production"),
]
_FIRMWARE = [
    _case(JUDGED, "apply = true", "", at=": debian[0].apply: ", says="missing", command="source:edk2"),
    _case(JUDGED, 'reason = "', 'reason = ""\nx = "', at=": debian[0].reason: ", says="must not be empty",
          command="source:edk2"),
    _case(FIRMWARE_SERIES, "0001-", "../0001-", at=":", says="bad patch name", command="source:edk2"),
]
_DIGESTS = [
    _case(GUEST, '"EPYC-v4"', '"host"', at=": machine.cpu: ", says="CPU model 'host': its CPUID signature is not known, so no launch digest can be computed; known: EPYC",
          command="digests:production"),
    _case(GUEST, '"EPYC-v4"', '"EPYC-Milan-v9"', at=": machine.cpu: ", says="CPU model 'EPYC-Milan-v9'", command="digests:production"),
]
_TEMPLATE = [
    _case(TEMPLATE, "{{ guest.cpu | toml }}", "{{ guest.cqu | toml }}", at=":", says="has no attribute 'cqu'",
          command="runtime:production"),
    _case(TEMPLATE, "{% endfor -%}", "", at=":", says="for", command="runtime:production"),
    _case(TEMPLATE, "{{ guest.cpu | toml }}", "{{ guest.cpu }}", at=": ", says="gives no valid TOML",
          command="runtime:production"),
    _case("pyproject.toml", 'version = "0.1.0"', "version = 1", at=": project.version: ", says="must be a version"),
    _case(KATA, "{{ guest.vcpus }}", "{{ guest.cpus }}", at=":", says="has no attribute 'cpus'",
          command="kata:production"),
    _case(KATA, "{{ kernel_params | toml }}", "{{ kernel_params }}", at=": ", says="gives no valid TOML",
          command="kata:production"),
]
# fmt: on

CASES = [*_GUEST, *_PROFILES, *_LOCKS, *_WANTED, *_MANIFEST, *_KERNEL, *_FIRMWARE, *_DIGESTS, *_TEMPLATE]
