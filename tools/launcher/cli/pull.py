# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch pull`: artifacts from a registry, when those vouch for them whom a policy names."""

import time
from datetime import UTC, datetime
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.options.arguments import JSON, QUIET
from tools.launcher.options.parser import Group, Option, Syntax
from tools.launcher.pull import reference
from tools.launcher.pull.connection import Options
from tools.launcher.pull.pull import Pulled, Wish, pull
from tools.launcher.trust import memory
from tools.launcher.trust.files import read_bundles
from tools.launcher.trust.policy import load_policy
from tools.sev.registry.reference import is_host


def _host(text: str) -> str:
    if not is_host(text):
        raise ValueError(f"{text[:80]!r} is no HOST or HOST:PORT")
    return text


SYNTAX = Syntax(
    Group(
        "options",
        Option("--policy", "FILE", text="whose word counts, and how many of them it takes: docs/pull.md", convert=Path),
        Option("-o", "DIR", text="the folder to make", convert=Path),
        Option("--sources", text="the sources and the checkout, too"),
        Option("--statement", "FILE", text="a signed statement that is not in the registry", convert=Path, many=True),
        Option("--state", "DIR", text="where the highest SVN is remembered; default: ~/.local/state", convert=Path),
        JSON,
        QUIET,
    ),
    Group(
        "the registry",
        Option("--ca", "FILE", text="certificate authorities to believe, instead of this machine's", convert=Path),
        Option("--allow-host", "HOST", text="where the registry may send us", convert=_host, many=True),
        Option("--plain-http", text="without TLS, to a registry on this machine"),
    ),
    usage=("REF --policy FILE -o DIR [options]",),
    positional=Option("REF", "REF", text="HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:DIGEST"),
    examples=f"""examples:
  {NAME} pull registry.example/team/sev-artifacts:v1 --policy policy.toml -o artifacts
      all that is in out/, once enough of those vouch for it whom the policy names

exit status: 0 placed; 1 refused, or the registry does not give it, and nothing is placed; 2 a mistake in options,
policy or login. Who you are is taken from docker's config.json.""",
)


def run(values: Values, ui: Ui) -> int:
    """Pull; what was placed on stdout."""
    for given, what in ((values.REF, "REF"), (values.policy, "--policy"), (values.o, "-o")):
        if given is None:
            raise UserError(f"no {what}", hint=f"say `{NAME} pull REF --policy FILE -o DIR`")
    policy = load_policy(values.policy)
    wish = Wish(
        place=reference.parse(values.REF),
        policy=policy,
        target=values.o,
        options=Options(ca=values.ca, plain_http=values.plain_http, hosts=tuple(values.allow_host)),
        bundles=read_bundles(values.statement),
        state=values.state or memory.default_folder(),
        sources=values.sources,
    )
    pulled = pull(wish, now=datetime.now(UTC), pause=time.sleep, ui=ui)
    if values.json:
        write_json(_document(pulled, wish))
    else:
        write_stdout(_text(pulled, wish))
    return 0


def _document(pulled: Pulled, wish: Wish) -> dict[str, object]:
    decision = pulled.decision
    return {
        "schema": 1,
        "folder": str(wish.target),
        "digest": pulled.artifact.digest,
        "profile": pulled.artifact.profile,
        "commit": decision.commit,
        "svn": decision.svn,
        "endorsers": {name: until.strftime("%Y-%m-%dT%H:%M:%SZ") for name, until in decision.endorsers},
        "publisher": decision.publisher,
    }


def _text(pulled: Pulled, wish: Wish) -> str:
    decision = pulled.decision
    until = min(until for _, until in decision.endorsers)
    names = ", ".join(name for name, _ in decision.endorsers)
    return (
        f"placed     {wish.target}: {pulled.files} files, {pulled.size / (1 << 20):.1f} MiB\n"
        f"digest     {pulled.artifact.digest}\n"
        f"commit     {decision.commit}, SVN {decision.svn}\n"
        f"endorsed   by {names}; holds until {until:%Y-%m-%d}\n"
        f"published  {'by ' + decision.publisher if decision.publisher else 'by somebody: the policy does not ask'}\n"
    )
