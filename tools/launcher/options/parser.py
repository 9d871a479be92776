# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Options as data: parsing, help, errors of one line.

Not argparse: importing that alone takes longer than `--help` may, its texts depend on Python's version and on
the terminal, and its errors take several lines. Imports nothing that is slow, so annotations are quoted.
"""

from tools.launcher.base.errors import UserError, suggestion
from tools.launcher.base.ui import NAME, sentence
from tools.launcher.base.values import Values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_COLUMN, _WIDTH = 26, 110


class Option:
    """`--name`, or a positional argument when the name has no dashes.

    `metavar` empty: a flag, True or False. `convert` makes the value and raises ValueError, whose text ends the
    error's line. `many`: given any number of times, a list; for a positional argument, at least once. `short`: another
    name, with one dash.
    """

    def __init__(
        self,
        name: str,
        metavar: str = "",
        *,
        text: str,
        convert: "Callable[[str], object]" = str,
        choices: "Sequence[str]" = (),
        default: object = None,
        many: bool = False,
        short: str = "",
    ) -> None:
        self.name = name
        self.key = name.lstrip("-").replace("-", "_")
        self.metavar = metavar or ("{" + ",".join(choices) + "}" if choices else "")
        self.text = text
        self.convert = convert
        self.choices = choices
        self.default = default
        self.many = many
        self.short = short

    @property
    def names(self) -> str:
        """As the help text shows it."""
        return f"{self.short}, {self.name}" if self.short else self.name

    @property
    def initial(self) -> object:
        """The value when the option is not given."""
        if self.default is None and not self.metavar:
            return False
        return [] if self.many else self.default

    def value(self, text: str) -> object:
        """The value for `text`; UserError names the option."""
        if self.choices and text not in self.choices:
            known = ", ".join(self.choices)
            raise UserError(
                f"argument {self.name}: invalid choice: {text[:80]!r}{suggestion(text, self.choices)} (known: {known})"
            )
        try:
            return self.convert(text)
        except ValueError as error:
            raise UserError(f"argument {self.name}: {error}") from None


class Group:
    """Options under a heading of the help text."""

    def __init__(self, title: str, *options: Option) -> None:
        self.title = title
        self.options = options


class Syntax:
    """What may follow a command's name.

    `usage` are the lines after its name, `positional` at most one argument, `exclusive` pairs of options that
    exclude each other; `workload`: words behind `--` are the command for the guest; `stranger`: what to say besides
    of an option that is not known.
    """

    def __init__(
        self,
        *groups: Group,
        usage: "Sequence[str]" = ("[options]",),
        examples: str = "",
        positional: Option | None = None,
        exclusive: "Sequence[tuple[str, str]]" = (),
        workload: bool = False,
        stranger: str = "",
    ) -> None:
        self.stranger = stranger
        self.groups = groups
        self.usage = usage
        self.examples = examples
        self.positional = positional
        self.exclusive = exclusive
        self.workload = workload

    @property
    def options(self) -> "Iterator[Option]":
        """All of them."""
        for group in self.groups:
            yield from group.options


def parse(syntax: Syntax, words: "Sequence[str]", *, command: str) -> Values:
    """The values, with `argv` for what stands behind `--`; UserError for a mistake."""
    words, argv = _cut(syntax, list(words), command)
    known = {name: option for option in syntax.options for name in (option.name, option.short) if name}
    values = Values({option.key: option.initial for option in known.values()})
    values["argv"] = argv
    given: set[str] = set()
    loose: list[str] = []
    try:
        while words:
            name, equals, text = words.pop(0).partition("=")
            option = known.get(name) if name.startswith("-") else None
            if option is None:
                loose.append(name + equals + text)
                continue
            given.add(option.name)
            _refuse_both(syntax, given, option.name)
            values.update(_take(option, text if equals else None, words, values[option.key]))
        _positional(syntax, loose, values, known)
    except UserError as error:
        raise UserError(f"{error}", hint=f"see {NAME} {command} --help") from None
    return values


def _cut(syntax: Syntax, words: list[str], command: str) -> tuple[list[str], tuple[str, ...]]:
    if "--" not in words:
        return words, ()
    cut = words.index("--")
    if not syntax.workload:
        what = f"unrecognized arguments: {' '.join(words[cut:])[:200]}"
        raise UserError(f"{what} (`{command}` runs no command)", hint=f"see {NAME} {command} --help")
    return words[:cut], tuple(words[cut + 1 :])


def _take(option: Option, text: str | None, words: list[str], before: object) -> dict[str, object]:
    if not option.metavar:
        if text is not None:
            raise UserError(f"argument {option.name}: takes no value")
        return {option.key: True}
    if text is None:
        if not words or words[0].startswith("--"):
            raise UserError(f"argument {option.name}: expected one argument")
        text = words.pop(0)
    value = option.value(text)
    return {option.key: [*before, value] if isinstance(before, list) else value}


def _refuse_both(syntax: Syntax, given: set[str], last: str) -> None:
    for pair in syntax.exclusive:
        if last in pair and given.issuperset(pair):
            other = pair[0] if last == pair[1] else pair[1]
            raise UserError(f"argument {last}: not allowed with argument {other}")


def _positional(syntax: Syntax, loose: list[str], values: Values, known: "dict[str, Option]") -> None:
    one = syntax.positional
    # A dash alone, and what looks like a negative number, is no misspelt option.
    dashed = [word for word in loose if word.startswith("-") and not word[1:2].isdigit() and word != "-"]
    taken = [] if one is None else [word for word in loose if word not in dashed]
    if syntax.workload and one is None and loose and loose[0] not in dashed:
        what = f"unrecognized arguments: {' '.join(loose)[:200]}"
        raise UserError(f"{what} (what runs in the guest stands behind --)")
    rest = dashed or ([] if one is not None and one.many else loose[0 if one is None else 1 :])
    if rest:
        hint = suggestion(rest[0].partition("=")[0], [*known, "--help"]) + syntax.stranger
        raise UserError(f"unrecognized arguments: {' '.join(rest)[:200]}{hint}")
    if one is None:
        return
    if one.many and not taken:
        raise UserError(f"the following arguments are required: {one.metavar}")
    made = [one.value(word) for word in taken]
    values[one.key] = made if one.many else next(iter(made), one.default)


def help_text(name: str, summary: str, syntax: Syntax) -> str:
    """What `sev-launch NAME --help` prints."""
    usage = "".join(f"{'usage:' if not i else '      '} {NAME} {name} {u}\n" for i, u in enumerate(syntax.usage))
    parts = [f"{usage}\n{sentence(summary)}\n"]
    general = Option("--help", text="this text; -h does the same")
    one = syntax.positional
    if one is not None:
        parts.append("arguments:\n" + _line(one.metavar, one.text))
    parts += [
        f"{group.title}:\n" + "".join(_line(f"{o.names} {o.metavar}".rstrip(), o.text) for o in group.options)
        for group in (*syntax.groups, Group("general", general))
    ]
    if syntax.examples:
        parts.append(syntax.examples + "\n")
    return "\n".join(parts)


def _line(name: str, text: str) -> str:
    """A name, and its text in a column of its own."""
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= _WIDTH - _COLUMN:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    lines.append(line)
    first = f"  {name}"
    first = first.ljust(_COLUMN) if len(first) < _COLUMN else f"{first}\n{'':{_COLUMN}}"
    return first + f"\n{'':{_COLUMN}}".join(lines) + "\n"
