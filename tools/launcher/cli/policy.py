# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-launch policy: bits to names, names to bits."""

from tools.launcher.base.errors import UserError, suggestion
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.options.parser import Group, Option, Syntax
from tools.sev import policy
from tools.sev.policy import Layout, Value

_EXAMPLES = f"""examples:
  {NAME} policy 0xb0000
      the names, one a line, as recipes/guest.toml writes them
  {NAME} policy smt=true debug=true min-abi=1.51
      the bits; a name that is left out gets the value of a 0 bit, and debug is false
  {NAME} policy --mode sev-es 0x5

exit status: 2 when the firmware would refuse the policy because of a reserved bit"""
_BOOLEANS = {"true": True, "false": False}
SYNTAX = Syntax(
    Group(
        "options",
        Option("--mode", choices=tuple(policy.LAYOUTS), default="snp", text="default: snp"),
        Option("--json", text="as one JSON document"),
    ),
    usage=("BITS [options]", "NAME=VALUE … [options]"),
    positional=Option("policy", "BITS | NAME=VALUE", text="a number, or names and values", many=True),
    examples=_EXAMPLES,
)


def run(values: Values, _: Ui) -> int:
    """Answer on stdout; UserError, after what could be decoded, when a reserved bit is not as it must be."""
    layout = policy.LAYOUTS[values.mode]
    words: list[str] = values.policy
    if any("=" in word for word in words):
        bits = _encode(words, layout)
        text = f"{bits:#x}\n"
    elif len(words) == 1:
        bits = _number(words[0])
        text = "".join(_lines(bits, layout))
    else:
        raise UserError("one number, or names and values", hint=f"see {NAME} policy --help")
    reasons = policy.wrong(bits, layout)
    if values.json:
        write_json(_document(bits, layout, reasons))
    else:
        write_stdout(text)
    if reasons:
        where = f"policy of mode {layout.mode}"
        raise UserError(f"{bits:#x} {reasons[0]}", where=where, details=tuple(reasons[1:]))
    return 0


def _lines(bits: int, layout: Layout) -> list[str]:
    """TOML, so that it can be put into recipes/guest.toml."""
    texts = {layout.version: f"{layout.version_text} that may run the guest"}
    texts |= {flag.name: f"{flag.text} (bit {flag.bit}, {flag.spec})" for flag in layout.flags}
    return [
        f"{f'{name} = {policy.toml_value(value)}':<29}# {texts[name]}\n"
        for name, value in policy.decode(bits, layout).items()
    ]


def _document(bits: int, layout: Layout, reasons: list[str]) -> dict[str, object]:
    # A string: readers that keep numbers as doubles would round 64 bits.
    return {
        "schema": 1,
        "mode": layout.mode,
        "policy": f"{bits:#x}",
        "names": policy.decode(bits, layout),
        "wrong": reasons,
    }


def _number(text: str) -> int:
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    base = 10 if digits is text else 16
    if not 1 <= len(digits) <= 32 or not all(c in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10] for c in digits):
        raise UserError(f"{text[:80]!r} is neither a number nor NAME=VALUE", hint=f"see {NAME} policy --help")
    return int(digits, base)


def _encode(words: list[str], layout: Layout) -> int:
    values: dict[str, Value] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word[:80]!r} has no value", hint="say NAME=true, NAME=false or a version")
        if name in values:
            raise UserError(f"{name[:80]!r} stands twice")
        if name != layout.version and layout.flag(name) is None:
            known = [layout.version, *(flag.name for flag in layout.flags)]
            near = suggestion(name, known)
            raise UserError(f"{name[:80]!r} is no name of mode {layout.mode}{near}; known: {', '.join(known)}")
        values[name] = _BOOLEANS.get(value, value)
    try:
        return policy.encode(values, layout)
    except ValueError as error:
        raise UserError(str(error)) from None
