# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/kata/dropin.toml.j2 + recipes → drop-ins for Kata Containers' configuration."""

from enum import StrEnum

from tools.pipeline.publish import toml_template
from tools.pipeline.recipes.guest import Guest
from tools.pipeline.recipes.profiles import Profile

TEMPLATE = "recipes/kata/dropin.toml.j2"
# QEMU target/i386/sev.c, DEFAULT_GUEST_POLICY: what Kata's plain SEV guests get, for it has no key for it.
QEMU_SEV_POLICY = 0x1


class Variant(StrEnum):
    """The protection that a drop-in asks for."""

    SNP = "snp"
    SEV = "sev"

    @property
    def file(self) -> str:
        """Name in config.d, where files are read in alphabetical order."""
        return f"50-sev-artifacts-{self}.toml"


def render(template: str, *, variant: Variant, profile: Profile, guest: Guest, kernel: str, firmware: str) -> str:
    """The text of a drop-in; `kernel` and `firmware` are file names in the output folder.

    Raises UserError when the template is wrong or gives no valid TOML.
    """
    return toml_template.render(
        template,
        where=TEMPLATE,
        name=variant.file,
        snp=variant is Variant.SNP,
        profile=profile,
        guest=guest,
        kernel=kernel,
        firmware=firmware,
        kernel_params=kernel_params(profile),
        qemu_sev_policy=QEMU_SEV_POLICY,
    )


def kernel_params(profile: Profile) -> str:
    """The profile's command line without what only this project's agent reads."""
    words = profile.cmdline.split(" ")
    return " ".join(word for word in words if word and not word.startswith("sev_agent."))
