# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-launch policy: bits to names, names to bits."""

import argparse
import json
import re

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_stdout
from tools.launcher.cli.command import Command
from tools.sev import policy
from tools.sev.policy import Layout, Value

_EXAMPLES = f"""examples:
  {NAME} policy 0xb0000
      the names, one a line, as recipes/guest.toml writes them
  {NAME} policy smt=true debug=true min-abi=1.51
      the bits; a name left out is as its bit is when zero, but debug is never on unasked
  {NAME} policy --mode sev-es 0x5

exit status: 2 when the firmware would refuse the policy because of a reserved bit"""
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,32}|[0-9]{1,30}")
_BOOLEANS = {"true": True, "false": False}


def _add(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument("policy", nargs="+", metavar="BITS | NAME=VALUE", help="a number, or names and values")
    parser.add_argument("--mode", choices=list(policy.LAYOUTS), default="snp", help="default: snp")
    parser.add_argument("--json", action="store_true", help="as one JSON document")


def _run(given: argparse.Namespace, _: Ui) -> int:
    """Answer on stdout; UserError, after what could be decoded, when a reserved bit is not as it must be."""
    layout = policy.LAYOUTS[given.mode]
    words: list[str] = given.policy
    if any("=" in word for word in words):
        bits = _encode(words, layout)
        text = f"{bits:#x}\n"
    elif len(words) == 1:
        bits = _number(words[0])
        text = "".join(_lines(bits, layout))
    else:
        raise UserError("one number, or names and values", hint=f"see {NAME} policy --help")
    reasons = policy.wrong(bits, layout)
    write_stdout(_json(bits, layout, reasons) if given.json else text)
    if reasons:
        raise UserError(f"{bits:#x} {'; '.join(reasons)}", where=f"policy of mode {layout.mode}")
    return 0


def _lines(bits: int, layout: Layout) -> list[str]:
    """TOML, so that it can be put into recipes/guest.toml."""
    texts = {layout.version: f"{layout.version_text} that may run the guest"}
    texts |= {flag.name: f"{flag.text} (bit {flag.bit}, {flag.spec})" for flag in layout.flags}
    return [
        f"{f'{name} = {json.dumps(value)}':<29}# {texts[name]}\n" for name, value in policy.decode(bits, layout).items()
    ]


def _json(bits: int, layout: Layout, reasons: list[str]) -> str:
    # A string: readers that keep numbers as doubles would round 64 bits.
    document = {
        "schema": 1,
        "mode": layout.mode,
        "policy": f"{bits:#x}",
        "names": policy.decode(bits, layout),
        "wrong": reasons,
    }
    return json.dumps(document, indent=2) + "\n"


def _number(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise UserError(f"{text[:80]!r} is neither a number nor NAME=VALUE", hint=f"see {NAME} policy --help")
    return int(text, 16 if text[:2] in ("0x", "0X") else 10)


def _encode(words: list[str], layout: Layout) -> int:
    values: dict[str, Value] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word[:80]!r} has no value", hint="say NAME=true, NAME=false or a version")
        if name in values:
            raise UserError(f"{name[:80]!r} stands twice")
        values[name] = _BOOLEANS.get(value, value)
    try:
        return policy.encode(values, layout)
    except ValueError as error:
        raise UserError(str(error)) from None


COMMAND = Command(
    name="policy",
    text="say what a guest policy's bits mean, or make the bits from names",
    add=_add,
    run=_run,
    examples=_EXAMPLES,
)
