# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration: fragment syntax, merging, the walk over Kconfig files, the audit of the result."""

import tarfile
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.guest.kconfig import (
    Problem,
    Request,
    archive_reader,
    audit,
    check_unique,
    load_fragments,
    parse_config,
    parse_fragment,
    raise_findings,
    read_symbols,
)
from tools.pipeline.guest.kernel import BUILTIN_FRAGMENT
from tools.pipeline.recipes import kernels
from tools.pipeline.tasks.project import Project

# A Kconfig tree with one of everything that the walk has to understand.
TREE = {
    "Kconfig": 'mainmenu "Test"\nsource "init/Kconfig"\nsource "arch/$(SRCARCH)/Kconfig"\n',
    "init/Kconfig": """\
# a comment
config MODULES
        bool "Enable loadable module support"
        modules
        help
          Text with a trap:
          config NOT_A_SYMBOL
            bool "inside the help text"

          select ALSO_NOT

config EXPERT
        bool "Expert"
        select DEBUG_KERNEL

config DEBUG_KERNEL
        bool

choice
        prompt "Compression"
        depends on EXPERT

config KERNEL_GZIP
        bool "Gzip"

config KERNEL_ZSTD
        bool "ZSTD"
        depends on HAVE_ZSTD

endchoice

menu "Guests"
        depends on VIRT

if NET || \\
   UNIX
config VSOCK
        tristate "Sockets" if EXPERT
        depends on PCI
        ---help---
          Old spelling.
endif # NET || UNIX

menuconfig TIMEOUT
        int "Seconds"
        default 0

endmenu # "Guests"

config NAME
        string 'Name'
""",
    "arch/x86/Kconfig": (
        'config PCI\n\tbool "PCI"\n\timply NAME\n\thelp\n\t  Tabs.\n          config TRAP\nconfig VIRT\n\tdef_bool y\n'
    ),
    "arch/arm64/Kconfig": 'config ARM_ONLY\n\tbool "elsewhere"\n',
}


def read(name: str) -> str:
    if name not in TREE:
        raise FileNotFoundError(2, "No such file or directory")
    return TREE[name]


def one(symbol: str, value: str, *, expected: bool = False) -> Request:
    return Request(symbol=symbol, value=value, where="test.config:7", expected=expected)


def test_fragment_lines_become_requests_with_their_place() -> None:
    text = (
        "# A comment.\n\nCONFIG_A=y\n# CONFIG_B is not set\n"
        'CONFIG_C="x \\" y"\nCONFIG_D=-1\nCONFIG_E=0x1F\n'
        "# expect: CONFIG_F=y\n# expect: CONFIG_G is not set\n"
    )
    requests = parse_fragment(text, name="f.config")
    assert [(r.symbol, r.value, r.where, r.expected) for r in requests] == [
        ("A", "y", "f.config:3", False),
        ("B", "n", "f.config:4", False),
        ("C", '"x \\" y"', "f.config:5", False),
        ("D", "-1", "f.config:6", False),
        ("E", "0x1F", "f.config:7", False),
        ("F", "y", "f.config:8", True),
        ("G", "n", "f.config:9", True),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONFIG_A=m", "no modules"),
        ("CONFIG_A=n", "# CONFIG_A is not set"),
        ("CONFIG_A = y", "cannot read"),
        (" CONFIG_A=y", "cannot read"),
        ("CONFIG_A=y ", "cannot read"),
        ("CONFIG_A=y # why", "cannot read"),
        ("CONFIG_A", "cannot read"),
        ("CONFIG_A=", "cannot read"),
        ("CONFIG_A=yes", "cannot read"),
        ('CONFIG_A="open', "cannot read"),
        ("CONFIG-A=y", "cannot read"),
        ("A=y", "cannot read"),
        ("#CONFIG_A is not set", "cannot read"),
        ("# CONFIG_A is not set.", "cannot read"),
        ("# CONFIG_A=y", "cannot read"),
        ("# A is not set", "cannot read"),
        ("# expect CONFIG_A=y", "cannot read"),
        ("# expect: CONFIG_A", "cannot read"),
        ("# expect: A=y", "cannot read"),
        ("CONFIG_A=y\r", "cannot read"),
    ],
)
def test_bad_fragment_line_is_refused_with_its_place(line: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^f\.config:2: ") as caught:
        parse_fragment(f"CONFIG_OK=y\n{line}\n", name="f.config")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("second", ["CONFIG_A=y", "# CONFIG_A is not set", "# expect: CONFIG_A=y"])
def test_symbol_in_two_places_is_refused_even_with_the_same_value(tmp_path: Path, second: str) -> None:
    (tmp_path / "one.config").write_text("CONFIG_A=y\n")
    (tmp_path / "two.config").write_text(f"\n{second}\n")
    paths = [tmp_path / "one.config", tmp_path / "two.config"]
    with pytest.raises(UserError) as caught:
        load_fragments(paths, label=lambda path: path.name)
    assert str(caught.value).startswith("two.config:2: CONFIG_A is already set in one.config:1")


def test_missing_or_binary_fragment_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "binary.config").write_bytes(b"\xff\xfe")
    for name in ("absent.config", "binary.config"):
        with pytest.raises(UserError, match=rf"{name}: fragment cannot be read"):
            load_fragments([tmp_path / name], label=lambda path: path.name)


def test_config_is_parsed() -> None:
    text = '#\n# Automatically generated\n#\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=""\nCONFIG_D=m\n'
    assert parse_config(text, where=".config") == {"A": "y", "B": "n", "C": '""', "D": "m"}
    with pytest.raises(UserError, match=r"^\.config:2: "):
        parse_config("CONFIG_A=y\nCONFIG_B=what\n", where=".config")


def test_walk_finds_what_this_architecture_sources_and_nothing_else() -> None:
    symbols = read_symbols(read)
    defined = {name for name, symbol in symbols.items() if symbol.defined}
    assert defined == {
        *(
            "MODULES",
            "EXPERT",
            "DEBUG_KERNEL",
            "KERNEL_GZIP",
            "KERNEL_ZSTD",
            "VSOCK",
            "TIMEOUT",
            "NAME",
            "PCI",
            "VIRT",
        )
    }
    assert symbols["KERNEL_ZSTD"].depends == ["EXPERT", "HAVE_ZSTD"]
    assert symbols["VSOCK"].depends == ["VIRT", "NET ||     UNIX", "PCI"]
    assert symbols["VSOCK"].prompts == ['"Sockets" if EXPERT']
    assert symbols["TIMEOUT"].depends == ["VIRT"]
    assert symbols["NAME"].depends == []
    assert symbols["NAME"].prompts == ["'Name'"]
    assert symbols["NAME"].selected_by == {"PCI"}
    assert symbols["DEBUG_KERNEL"].prompts == []
    assert symbols["DEBUG_KERNEL"].selected_by == {"EXPERT"}
    assert {name for name, s in read_symbols(read, arch="arm64").items() if s.defined} >= {"ARM_ONLY"}


def packed(folder: Path) -> Path:
    """Kconfig files of a tree in a tar, as the configuration step leaves them."""
    target = folder / "kconfig.tar"
    with tarfile.open(target, "w") as archive:
        for path in sorted(folder.rglob("Kconfig*")):
            archive.add(path, f"./{path.relative_to(folder)}")
    return target


def test_incomplete_or_unbalanced_tree_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text('source "gone/Kconfig"\n')
    with pytest.raises(UserError, match=r"gone/Kconfig: cannot be read"):
        read_symbols(archive_reader(packed(tmp_path)))
    (tmp_path / "Kconfig").write_text('menu "Open"\nconfig A\n\tbool "A"\n')
    with pytest.raises(UserError, match=r"Kconfig: unbalanced"):
        read_symbols(archive_reader(packed(tmp_path)))


def test_honoured_requests_give_no_finding() -> None:
    requests = (
        *(one("PCI", "y"), one("VSOCK", "n"), one("TIMEOUT", "-1"), one("KERNEL_GZIP", "n")),
        *(one("DEBUG_KERNEL", "y", expected=True), one("VIRT", "y", expected=True)),
    )
    result = {"PCI": "y", "TIMEOUT": "-1", "DEBUG_KERNEL": "y", "VIRT": "y"}
    findings = audit(requests, symbols=read_symbols(read), result=result)
    assert findings == ()
    raise_findings(findings)


@pytest.mark.parametrize(
    ("request_", "problem", "words"),
    [
        (one("TYPO", "y"), Problem.UNKNOWN, ["no such symbol"]),
        (one("ARM_ONLY", "y"), Problem.UNKNOWN, ["no such symbol"]),
        (one("HAVE_ZSTD", "y"), Problem.UNKNOWN, ["no such symbol"]),
        (one("TYPO", "n"), Problem.UNKNOWN, ["no such symbol"]),
        (one("DEBUG_KERNAL", "y"), Problem.UNKNOWN, ["no such symbol", "did you mean 'DEBUG_KERNEL'?"]),
        (one("TYPO", "y", expected=True), Problem.UNKNOWN, ["no such symbol"]),
        (
            one("DEBUG_KERNEL", "y"),
            Problem.PROMPTLESS,
            ["selected by EXPERT", "# expect: CONFIG_DEBUG_KERNEL"],
        ),
        (one("VIRT", "y"), Problem.PROMPTLESS, ["its own default decides"]),
        (
            one("VSOCK", "y"),
            Problem.DROPPED,
            ["(PCI)", "prompt EXPERT", "PCI=y", "EXPERT=y", "NET=n", "UNIX=n"],
        ),
        (one("PCI", "n"), Problem.CHANGED, ["asked for n, is y"]),
        (one("NAME", "n"), Problem.CHANGED, ['is "guest"; selected by PCI']),
        (one("TIMEOUT", "5"), Problem.CHANGED, ["asked for 5, is 0"]),
        (one("DEBUG_KERNEL", "n", expected=True), Problem.EXPECTATION, ["expected n, is y"]),
        (one("KERNEL_ZSTD", "y", expected=True), Problem.EXPECTATION, ["expected y, is n", "HAVE_ZSTD=n"]),
    ],
)
def test_each_kind_of_finding_names_place_and_reason(request_: Request, problem: Problem, words: list[str]) -> None:
    result = {"PCI": "y", "EXPERT": "y", "DEBUG_KERNEL": "y", "TIMEOUT": "0", "VIRT": "y", "NAME": '"guest"'}
    (finding,) = audit([request_], symbols=read_symbols(read), result=result)
    assert finding.problem is problem
    for word in words:
        assert word in str(finding)
    assert str(finding).startswith(f"test.config:7: CONFIG_{request_.symbol}: ")


def test_all_findings_are_reported_at_once() -> None:
    findings = audit([one("TYPO", "y"), one("SECOND", "y")], symbols=read_symbols(read), result={})
    with pytest.raises(UserError) as caught:
        raise_findings(findings)
    first, *others = str(caught.value).splitlines()
    assert first == "2 options are not in the kernel's configuration as the fragments ask"
    assert [line.split(": ")[:2] for line in others] == [
        ["   test.config:7", "CONFIG_TYPO"],
        ["   test.config:7", "CONFIG_SECOND"],
    ]


@pytest.mark.parametrize("extra", [(), (BUILTIN_FRAGMENT,)])
@pytest.mark.parametrize("kernel", ["linux-6.12", "linux-6.12-debug", "linux-6.12-kata", "linux-6.12-network"])
def test_the_shipped_kernels_keep_what_is_promised(project: Project, kernel: str, extra: tuple[str, ...]) -> None:
    recipe = next(recipe for recipe in project.recipes.kernels if recipe.name == kernel)
    paths = [project.root / path for path in (*recipe.fragments, *extra)]
    requests = {r.symbol: r.value for r in load_fragments(paths, label=lambda path: path.name)}
    # What the project promises (issue 2, docs/kernel.md), so that no edit of a fragment drops it unseen.
    for symbol in (
        *(
            "AMD_MEM_ENCRYPT",
            "SEV_GUEST",
            "TSM_REPORTS",
            "EFI_SECRET",
            "EFI_COCO_SECRET",
            "SWIOTLB",
            "EFI_STUB",
            "EFI_DISABLE_RUNTIME",
        ),
        *(
            "EROFS_FS",
            "DM_VERITY",
            "OVERLAY_FS",
            "NAMESPACES",
            "CGROUPS",
            "MEMCG",
            "SECCOMP",
        ),
        *(
            "UNIX",
            "VIRTIO_PCI",
            "VIRTIO_BLK",
            "VIRTIO_CONSOLE",
            "RD_ZSTD",
        ),
        *("STRICT_KERNEL_RWX", "STACKPROTECTOR_STRONG", "INIT_ON_ALLOC_DEFAULT_ON", "STATIC_USERMODEHELPER"),
        *("SECURITY_LOCKDOWN_LSM", "RANDOMIZE_BASE", "HARDENED_USERCOPY", "FORTIFY_SOURCE"),
        # On by default in Kconfig but off in allnoconfig: a guest once booted without them.
        *("MITIGATION_SPECTRE_V1", "MITIGATION_SPECTRE_V2", "MITIGATION_SSB", "MITIGATION_RETBLEED"),
        *("MITIGATION_TSA", "MITIGATION_SRSO", "MITIGATION_RETPOLINE", "CPU_MITIGATIONS"),
    ):
        assert requests.get(symbol) == "y", symbol
    off = ("MODULES", "DAX", "FS_DAX", "DEVMEM", "PROC_KCORE", "CPU_SUP_INTEL", "USER_NS", "ACPI_MADT_WAKEUP")
    plugged = ("HOTPLUG_PCI", "ACPI_HOTPLUG_CPU", "MEMORY_HOTPLUG", "VIRTIO_BALLOON", "VIRTIO_MEM", "HPET_TIMER")
    # Bounce buffers in one pool that does not grow (docs/kernel.md, "Bounce buffers").
    for symbol in (*off, *plugged, "LOCALVERSION_AUTO", "SWIOTLB_DYNAMIC"):
        assert requests.get(symbol) == "n", symbol
    # What only some guests have; elsewhere the audit sees to it that it stays out.
    kata, debug = kernel.endswith("-kata"), kernel.endswith("-debug")
    for symbol in ("INET", "PACKET", "NETDEVICES", "VIRTIO_NET"):
        assert requests.get(symbol) == ("y" if kata or debug or kernel.endswith("-network") else "n"), symbol
    for symbol in ("VSOCKETS", "FUSE_FS", "NETWORK_FILESYSTEMS", "NET_9P", "DM_CRYPT"):
        assert requests.get(symbol) == ("y" if kata else "n"), symbol
    debug_only = ("SERIAL_8250_CONSOLE", "DEBUG_FS", "KALLSYMS")
    assert [requests.get(symbol, "n") for symbol in debug_only] == ["y" if debug else "n"] * 3
    locked = requests.get("LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY", "n")
    assert locked == ("n" if debug else "y")


def test_every_shipped_fragment_belongs_to_a_kernel(project: Project) -> None:
    kernels_of_all = {kernel for profile in project.recipes.all_profiles for kernel in profile.kernels}
    used = {path for kernel in kernels_of_all for path in kernel.fragments}
    there = {path.relative_to(project.root).as_posix() for path in (project.root / kernels.FRAGMENTS).glob("*.config")}
    assert there == {*used, BUILTIN_FRAGMENT}


def test_unique_requests_pass_unchanged() -> None:
    requests = (one("A", "y"), one("B", "n"))
    assert check_unique(requests) == requests
