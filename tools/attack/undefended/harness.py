# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The agent's own fuzzing harness as a program, and the same with a flaw planted into the agent's decoder.

initramfs/agent ── cargo test --no-run ── harness; run in the sandbox, at this machine's own speed
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import Step
from tools.pipeline.guest import agent
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Mount

NAME = "harness"
_TEST = "tests::fuzz::mutated_and_replayed_messages"
_BUILD = """
mkdir /build/crate && cp -r /src/. /build/crate/ && chmod -R u+w /build/crate
export CARGO_HOME=/build/cargo-home CARGO_TARGET_DIR=/build/target CARGO_INCREMENTAL=0
mkdir -p "$CARGO_HOME" && cp /src/cargo-config.toml "$CARGO_HOME/config.toml"
cd /build
grep -q '^pub fn decode(' crate/src/channel/message.rs
awk '{ print } /^pub fn decode\\(/ { print ENVIRON["FLAW"] }' /src/src/channel/message.rs > crate/src/channel/message.rs
cargo test --manifest-path crate/Cargo.toml --no-run --locked --frozen --offline
cp "$(find target/debug/deps -name 'agent-*' -type f -perm -100)" /out/harness
"""


class Flaw(StrEnum):
    """What is planted: Rust, at the beginning of the agent's decoder of messages."""

    NONE = ""
    PANIC = "assert!(frame.payload.first() != Some(&0x7f));"
    LEAK = "if frame.payload.len() % 2 == 1 { Box::leak(vec![1_u8; 256].into_boxed_slice()); }"


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What the harness said: its line about the messages, and how it failed, empty if it did not."""

    line: str
    failure: str


def run(lab: Lab, flaw: Flaw, *, seed: int, messages: int) -> Ran:
    """Run it; BuildError when it says nothing of its messages and does not fail either."""
    return lab.once(f"harness {flaw.name} {seed} {messages}", lambda: _run(lab, flaw, seed=seed, messages=messages))


def _step(lab: Lab, flaw: Flaw) -> Step:
    compiled = agent.step(lab.project.root)
    name = f"agent-harness-{flaw.name.lower()}"
    return Step(
        name=name,
        title=f"the agent's harness ({flaw.name.lower()} planted)",
        argv=("/bin/sh", "-euc", _BUILD),
        tools="build",
        inputs=compiled.inputs,
        outputs=(NAME,),
        environment={"FLAW": str(flaw)},
        parallel=True,
    )


def _run(lab: Lab, flaw: Flaw, *, seed: int, messages: int) -> Ran:
    program = lab.output(_step(lab, flaw), NAME)
    program.chmod(0o755)
    work = lab.folder(f"harness {flaw.name}")
    log = work / "log"
    command = sandbox.Command(
        argv=("/inputs/harness", "--exact", _TEST, "--nocapture", "--test-threads=1"),
        tree=lab.tree("build"),
        mounts=(Mount(host=program, inside="/inputs/harness"), Mount(host=_made(work), inside="/build", writable=True)),
        environment={"SEV_AGENT_SEED": str(seed), "SEV_AGENT_MESSAGES": str(messages), "RUST_BACKTRACE": "0"},
    )
    outcome = sandbox.run(command, title="agent harness", log=log, replay=work / "replay.sh")
    text = log.read_text(errors="replace")
    found = re.search(r"^.*?(\d+ messages, \d+ accepted, .*)$", text, re.MULTILINE)
    failed = re.search(r"panicked at [^\n]*\n([^\n]*)", text)
    if failed is None and (found is None or outcome.status != 0):
        raise BuildError(f"the harness ended with status {outcome.status}: {text[-160:]}")
    return Ran(line=found[1] if found else "", failure=failed[1] if failed else "")


def _made(work: Path) -> Path:
    path = work / "build"
    path.mkdir()
    return path
