# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit idblock: the ID block of a profile's artifacts, signed with a key that the user gives."""

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files, toml_reader, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.measure import cpu_models, id_block, policy
from tools.pipeline.measure.digest import Inputs, Launch
from tools.pipeline.measure.id_block import Author, Identity
from tools.pipeline.recipes.profiles import Profile
from tools.pipeline.tasks.project import Project

VCPUS_MAX = 255


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options of the command as they were typed; "" means: as recipes/guest.toml says."""

    profile: str
    key: str
    author_key: str
    family_id: str
    image_id: str
    svn: str
    cpu: str
    vcpus: str
    digest: str
    out: str


def make(project: Project, wish: Wish) -> None:
    """Write ID block and ID authentication information, and print the key digests.

    Raises UserError for a wrong option or key, BuildError for firmware that cannot be measured.
    """
    # Importing cryptography takes longer than a build with nothing to do.
    from tools.pipeline.measure import id_keys as idkeys  # noqa: PLC0415

    profile = _profile(project, wish.profile)
    identity = _identity(project, wish)
    cpu = wish.cpu or project.recipes.guest.cpu
    vcpus = _number(wish.vcpus, option="--vcpus", low=1, high=VCPUS_MAX, default=project.recipes.guest.vcpus)
    if not wish.key:
        raise UserError("no key", where="--key", hint="give a PEM file with the P-384 private key that signs")
    key = idkeys.load(project.root / wish.key)
    author_key = idkeys.load(project.root / wish.author_key) if wish.author_key else None
    launch_digest = _given_digest(wish.digest) if wish.digest else expected_snp_digest(project, profile, cpu, vcpus)
    bits = project.recipes.guest.snp_policy
    block = id_block.id_block(digest=launch_digest, identity=identity, policy=bits)
    author = None
    if author_key is not None:
        author = Author(key=author_key.public, id_key_signature=author_key.sign(key.public.packed))
    auth = id_block.id_auth(block_signature=key.sign(block), id_key=key.public, author=author)
    folder = project.root / wish.out if wish.out else project.build / "idblock" / profile.name
    for name, data in (("id-block", block), ("id-auth", auth)):
        files.write_if_changed(folder / f"{name}.bin", data)
        # One line, as QEMU's sev-snp-guest takes it for the property of the same name.
        files.write_if_changed(folder / f"{name}.b64", base64.b64encode(data) + b"\n")
    where = "given with --digest" if wish.digest else f"{profile.name} profile, {cpu}, vCPUs: {vcpus}"
    ui.line(f"   launch digest      {launch_digest.hex()}  ({where})")
    ui.line(f"   policy             {bits:#x}  ({policy.spell(bits, policy.SNP)})")
    ui.line(f"   family id          {identity.family_id.hex()}")
    ui.line(f"   image id           {identity.image_id.hex()}")
    ui.line(f"   SVN                {identity.svn}")
    ui.line(f"   ID key digest      {key.public.digest.hex()}")
    if author_key is not None:
        ui.line(f"   author key digest  {author_key.public.digest.hex()}")
    ui.line(f"   written            {folder}/id-block.bin, id-auth.bin and both as .b64")


def expected_snp_digest(project: Project, profile: Profile, cpu: str, vcpus: int) -> bytes:
    """The launch digest, 48 bytes, that the secure processor computes for the profile's built artifacts.

    Raises UserError when they are not built, or from other recipes, or when the CPU model is unknown.
    """
    model = cpu_models.find(cpu[:80], where="--cpu")
    parts = _checked_artifacts(project, profile)
    launch = Launch(
        Inputs(
            firmware=parts["firmware"],
            firmware_size=profile.firmware.size.bytes,
            kernel=parts["kernel"],
            initramfs=parts.get("initramfs"),
            cmdline=profile.cmdline,
        )
    )
    return bytes.fromhex(launch.snp(model.signature, up_to=vcpus)[-1])


def _checked_artifacts(project: Project, profile: Profile) -> dict[str, Path]:
    """The measured files in the output folder, which must be those that its runtime.toml names."""
    folder = project.out(profile)
    rebuild = f"run ./doit artifacts:{profile.name}"
    config = folder / "runtime.toml"
    if not config.is_file():
        raise UserError("is not there", where=f"{folder.name}/runtime.toml", hint=rebuild)
    table = toml_reader.load(config, shown_as=f"{folder.name}/runtime.toml")
    built_cmdline = table.table("kernel").string("cmdline")
    built_policy = table.table("sev").table("snp").integer("policy", low=0, high=(1 << 64) - 1)
    if (built_cmdline, built_policy) != (profile.cmdline, project.recipes.guest.snp_policy):
        raise UserError("was built from other recipes", where=f"{folder.name}/runtime.toml", hint=rebuild)
    parts = {}
    artifacts = table.table("artifacts")
    for role in artifacts.keys():  # noqa: SIM118  a method of our own, not a dict's
        entry = artifacts.table(role)
        path = folder / entry.string("file", pattern=r"[A-Za-z0-9][A-Za-z0-9._+-]*", says="a plain file name")
        if not path.is_file() or files.of_file(path) != entry.sha256("sha256"):
            raise BuildError("is not what runtime.toml names", where=f"{folder.name}/{path.name}", hint=rebuild)
        parts[role] = path
    return parts


def _profile(project: Project, name: str) -> Profile:
    names = [p.name for p in project.recipes.profiles]
    if name not in names:
        raise UserError(f"{name[:80]!r} is none of: {', '.join(names)}", where="--profile")
    return project.recipes.profile(name)


def _identity(project: Project, wish: Wish) -> Identity:
    default = project.recipes.guest.identity
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
