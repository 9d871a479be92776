# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit idblock: the ID block of a profile's artifacts, signed with a key that the user gives."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files, toml_reader, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.measure.digest import Inputs, Launch
from tools.pipeline.recipes.guest import Guest
from tools.pipeline.recipes.profiles import Profile
from tools.sev import cpu_models, id_block, policy
from tools.sev.agent import agent_abi
from tools.sev.errors import FormatError
from tools.sev.formats import NETWORK, RUNTIME_NAME, with_addition
from tools.sev.id_block import Author, IdBlock, Identity
from tools.sev.limits import VCPUS_MAX
from tools.sev.workload import reader


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options of the command as they were typed; "" means: as recipes/guest.toml says."""

    key: str
    author_key: str
    family_id: str
    image_id: str
    svn: str
    cpu: str
    vcpus: str
    digest: str
    workload: str
    unbound: bool
    out: str


@dataclass(frozen=True, kw_only=True)
class Built:
    """What is signed: a profile, built into the output folder `out`; `root` is the checkout's.

    `snp_digest` computes the launch digest (48 bytes) of measured files by role under a kernel command line, for a CPU
    model and a number of vCPUs.
    """

    root: Path
    out: Path
    guest: Guest
    profile: Profile
    snp_digest: Callable[[Profile, Mapping[str, Path], str, str, int], bytes]


def make(built: Built, wish: Wish, *, folder: Path) -> None:
    """Write ID block and ID authentication information, and print the key digests.

    Into `folder`, unless the wish names another. Raises UserError for a wrong option or key, BuildError for firmware
    that cannot be measured.
    """
    from tools.pipeline.measure import id_keys  # noqa: PLC0415 (start-up: it imports cryptography)

    guest = built.guest
    identity = _identity(guest.identity, wish)
    cpu = wish.cpu or guest.cpu
    vcpus = _number(wish.vcpus, option="--vcpus", low=1, high=VCPUS_MAX, default=guest.vcpus)
    if not wish.key:
        raise UserError("no key", where="--key", hint="give a PEM file with the P-384 private key that signs")
    key = id_keys.load(built.root / wish.key)
    author_key = id_keys.load(built.root / wish.author_key) if wish.author_key else None
    if wish.digest:
        launch_digest, what = _given_digest(wish.digest), ""
    else:
        word, what, config = _binding(built, wish)
        launch_digest = expected_snp_digest(built, word, cpu, vcpus, config=config)
    bits = guest.snp_policy
    block = IdBlock(digest=launch_digest, identity=identity, policy=bits).packed
    author = None
    if author_key is not None:
        author = Author(key=author_key.public, id_key_signature=author_key.sign(key.public.packed))
    auth = id_block.id_auth(block_signature=key.sign(block), id_key=key.public, author=author)
    if wish.out:
        folder = built.root / wish.out
    for name, data in (("id-block", block), ("id-auth", auth)):
        files.write_if_changed(folder / f"{name}.bin", data)
        # One line, as QEMU's sev-snp-guest takes it for the property of the same name.
        files.write_if_changed(folder / f"{name}.b64", base64.b64encode(data) + b"\n")
    where = "given with --digest" if wish.digest else f"{built.profile.name} profile, {what}, {cpu}, vCPUs: {vcpus}"
    ui.line(f"   launch digest      {launch_digest.hex()}  ({where})")
    ui.line(f"   policy             {bits:#x}  ({policy.spell(bits, policy.SNP)})")
    ui.line(f"   family id          {identity.family_id.hex()}")
    ui.line(f"   image id           {identity.image_id.hex()}")
    ui.line(f"   SVN                {identity.svn}")
    ui.line(f"   ID key digest      {key.public.digest.hex()}")
    if author_key is not None:
        ui.line(f"   author key digest  {author_key.public.digest.hex()}")
    ui.line(f"   written            {folder}/id-block.bin, id-auth.bin and both as .b64")


def _binding(built: Built, wish: Wish) -> tuple[str, str, str]:
    """The word on the command line that says who decides what runs, the same for people, and the runtime config."""
    if bool(wish.workload) is wish.unbound:
        raise UserError(
            "the launch digest depends on what runs",
            where="--workload" if wish.unbound else None,
            hint="give either --workload FILE or --unbound (docs/workload.md)",
        )
    if wish.unbound:
        return agent_abi.UNBOUND, "unbound", RUNTIME_NAME
    try:
        document = reader.parse((built.root / wish.workload).read_bytes(), where=f"--workload {wish.workload}")
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=f"--workload {wish.workload}") from None
    except FormatError as error:
        raise UserError.of(error) from None
    config, profile = RUNTIME_NAME, built.profile
    if document.network != "none":
        # Such a guest is started with another kernel.
        if profile.network is None:
            what = f"has a network, and the {profile.name} profile no kernel for one"
            raise UserError(what, where=f"--workload {wish.workload}", hint="give another --profile")
        config = with_addition(RUNTIME_NAME, NETWORK)
    return agent_abi.workload_word(document.sha256), f"workload {document.sha256}", config


def expected_snp_digest(built: Built, word: str, cpu: str, vcpus: int, *, config: str) -> bytes:
    """The launch digest, 48 bytes, that the secure processor computes for the profile's built artifacts.

    They are those that the runtime config of that name, in the output folder, names. `word`, at the end of the kernel
    command line, says who decides what runs.
    Raises UserError when they are not built, or from other recipes, or when the CPU model is unknown.
    """
    try:
        cpu_models.find(cpu, where="--cpu")
    except FormatError as error:
        raise UserError.of(error) from None
    cmdline = agent_abi.with_binding(built.profile.cmdline, word)
    return built.snp_digest(built.profile, _checked_artifacts(built, config), cmdline, cpu, vcpus)


def compute_snp_digest(profile: Profile, files: Mapping[str, Path], cmdline: str, cpu: str, vcpus: int) -> bytes:
    """Built.snp_digest in this process. Raises BuildError for firmware that cannot be measured."""
    inputs = Inputs(
        firmware=files["firmware"],
        firmware_size=profile.firmware.size.bytes,
        kernel=files["kernel"],
        initramfs=files.get("initramfs"),
        cmdline=cmdline,
    )
    try:
        digests = Launch(inputs).snp(cpu_models.find(cpu).signature, up_to=vcpus)
    except FormatError as error:
        raise BuildError.of(error) from None
    return bytes.fromhex(digests[-1])


def _checked_artifacts(built: Built, name: str) -> dict[str, Path]:
    """The measured files in the output folder, which must be those that its runtime config names."""
    folder, profile = built.out, built.profile
    rebuild = f"run ./doit artifacts:{profile.name}"
    config = folder / name
    if not config.is_file():
        raise UserError("is not there", where=f"{folder.name}/{name}", hint=rebuild)
    table = toml_reader.load(config, shown_as=f"{folder.name}/{name}")
    built_cmdline = table.table("kernel").string("cmdline")
    built_policy = table.table("sev").table("snp").integer("policy", low=0, high=(1 << 64) - 1)
    if (built_cmdline, built_policy) != (profile.cmdline, built.guest.snp_policy):
        raise UserError("was built from other recipes", where=f"{folder.name}/{name}", hint=rebuild)
    parts = {}
    artifacts = table.table("artifacts")
    for role in artifacts.keys():  # noqa: SIM118  a method of our own, not a dict's
        entry = artifacts.table(role)
        path = folder / entry.string("file", pattern=r"[A-Za-z0-9][A-Za-z0-9._+-]*", says="a plain file name")
        if not path.is_file() or files.of_file(path) != entry.sha256("sha256"):
            raise BuildError(f"is not what {name} names", where=f"{folder.name}/{path.name}", hint=rebuild)
        parts[role] = path
    return parts


def _identity(default: Identity, wish: Wish) -> Identity:
    return Identity(
        family_id=_id(wish.family_id, option="--family-id", default=default.family_id),
        image_id=_id(wish.image_id, option="--image-id", default=default.image_id),
        svn=_number(wish.svn, option="--svn", low=0, high=id_block.SVN_MAX, default=default.svn),
    )


def _id(text: str, *, option: str, default: bytes) -> bytes:
    if not text:
        return default
    try:
        return id_block.parse_id(text)
    except ValueError as error:
        raise UserError(str(error), where=option) from None


def _number(text: str, *, option: str, low: int, high: int, default: int) -> int:
    if not text:
        return default
    if re.fullmatch(r"[0-9]{1,10}", text) is None or not low <= int(text) <= high:
        raise UserError(f"{text[:80]!r} is no whole number from {low} to {high}", where=option)
    return int(text)


def _given_digest(text: str) -> bytes:
    if re.fullmatch(r"[0-9a-fA-F]{96}", text) is None:
        raise UserError(f"{text[:100]!r} is no SHA-384 in 96 hexadecimal digits", where="--digest")
    return bytes.fromhex(text)
