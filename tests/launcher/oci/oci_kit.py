# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""config.json files that real engines handed to their runtime, and what tests change in them.

engines/NAME.json: captured with Debian's packages (12: docker.io 20.10.24, podman 4.3.1; 13: docker.io 26.1.5, podman
5.4.2, containerd 1.7.24 by `ctr run`) by a runtime that kept a copy, without a network unless a variant says so.
`default` is of `run IMAGE true`; `variants` have what another `run` changed in it, null for what it left out. Entries
of the filter of system calls are numbers of `calls`. Ids and paths of the machine that it was done on are exchanged.
"""

import copy
import json
from pathlib import Path
from typing import Any

from tools.launcher.oci import config
from tools.launcher.oci.container import Container
from tools.launcher.oci.settings import Settings
from tools.launcher.oci.translate import Translated, translate
from tools.sev.workload.document import Verity

FOLDER = Path(__file__).parent / "engines"
ENGINES = {"docker-20.10": 1, "docker-26.1": 2, "podman-4.3": 1, "podman-5.4": 2}
"""Each and the number of its defaults' name."""
DEFAULT = Settings()
ROOT = Verity(root_hash="ab" * 32, salt="", layers=(7, 3))
_NESTED = ("process", "linux")


def captured(engine: str, variant: str = "default") -> dict[str, Any]:
    """A config.json."""
    file = json.loads((FOLDER / f"{engine}.json").read_text())
    found: dict[str, Any] = copy.deepcopy(file["default"])
    if variant != "default":
        for path, value in file["variants"][variant].items():
            outer, _, inner = path.partition(".")
            where = found[outer] if inner else found
            if value is None:
                del where[inner or outer]
            else:
                where[inner or outer] = value
    seccomp = found["linux"].get("seccomp", {})
    if seccomp:
        seccomp["syscalls"] = [file["calls"][number] for number in seccomp["syscalls"]]
    return found


def variants(engine: str) -> list[str]:
    """What is there of an engine."""
    return ["default", *json.loads((FOLDER / f"{engine}.json").read_text())["variants"]]


def execs(engine: str) -> dict[str, Any]:
    """What it handed to exec."""
    found: dict[str, Any] = json.loads((FOLDER / f"{engine}.json").read_text())["exec"]
    return found


def parsed(value: Any) -> Container:
    """The container, as if config.json said this."""
    return config.parse(json.dumps(value).encode(), where="config.json")


def translated(
    value: Any,
    *,
    settings: Settings = DEFAULT,
    network: bool = False,
    stdin: bool = False,
) -> Translated:
    """What becomes of it."""
    return translate(parsed(value), root=ROOT, settings=settings, network=network, stdin=stdin)
