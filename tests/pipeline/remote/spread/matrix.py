# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A matrix of small steps: four that all variants share, four of each variant's own; each burns a known CPU time.

sources ─┬─ headers ── config-N ─┐
         └─ library ─────────────┴─ kernel-N ─┐
tools ────────────────────────────────────────┴─ image-N ── digests-N
"""

from tests.pipeline.engine.workshop import shell
from tools.pipeline.engine.step import Step, closure

BURN = 0.3
"""Seconds of CPU time that each step takes."""
_SCRIPT = """cat >/build/burn.py <<'end'
import glob, hashlib, pathlib, time
total = hashlib.sha256(b"{name}")
for path in sorted(glob.glob("/inputs/*")):
    total.update(pathlib.Path(path).read_bytes())
while time.process_time() < {burn}:
    hashlib.sha256(bytes(10000)).digest()
pathlib.Path("/out/out").write_text(total.hexdigest())
end
python3 -I -S /build/burn.py"""


def steps(variants: int, *, burn: float = BURN) -> tuple[Step, ...]:
    """All of them, needed ones first. What they give does not depend on how long they burn."""

    def made(name: str, *needed: Step) -> Step:
        inputs = {f"/inputs/{one.name}": one.output("out") for one in needed}
        return shell(_SCRIPT.format(name=name, burn=burn), name=name, inputs=inputs)

    sources, tools = made("sources"), made("tools")
    headers, library = made("headers", sources), made("library", sources)
    found = []
    for number in range(variants):
        config = made(f"config-{number}", headers)
        kernel = made(f"kernel-{number}", config, library)
        image = made(f"image-{number}", kernel, tools)
        found.append(made(f"digests-{number}", image))
    return tuple(closure(*found))
