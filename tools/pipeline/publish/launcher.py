# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""tools/sev/ and tools/launcher/ → sev-launch, one executable file that a person can read.

With tools/runtime/ besides → sev-runtime, another.
"""

from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Step

NAME = "sev-launch"
EXAMPLE = "sev-runtime.toml.example"
RUNTIME = "sev-runtime"
_PROGRAM = "tools/pipeline/publish/pack_launcher.py"
# Those of Debian 13 and Debian 12. Any other compiles what it imports, at every start.
_PYTHONS = ("python3", "python3.11")
_PACKAGES = {NAME: ("tools/sev", "tools/launcher"), RUNTIME: ("tools/sev", "tools/launcher", "tools/runtime")}


def sources(root: Path, name: str = NAME) -> list[str]:
    """What a program is packed from, by path from the checkout's root."""
    found = (path for package in _PACKAGES[name] for path in (root / package).rglob("*.py"))
    return sorted(["tools/__init__.py", *(path.relative_to(root).as_posix() for path in found)])


def step(root: Path, name: str = NAME) -> Step:
    """The step that packs it."""
    title = {NAME: "launcher", RUNTIME: "container-runtime"}[name]
    return Step(
        name=title,
        title=title.replace("-", " "),
        argv=("python3", "/inputs/pack.py", "/src", f"/out/{name}", *_PYTHONS),
        tools="python",
        inputs={
            "/inputs/pack.py": CheckoutFile(path=_PROGRAM),
            **{f"/src/{path}": CheckoutFile(path=path) for path in sources(root, name)},
        },
        outputs=(name,),
    )


def example() -> Step:
    """The step that puts an explained sev-runtime.toml beside it, under a name that is not read."""
    copy = f"import shutil; shutil.copyfile('/inputs/{EXAMPLE}', '/out/{EXAMPLE}')"
    return Step(
        name="runtime-example",
        title="example of sev-runtime.toml",
        argv=("python3", "-c", copy),
        tools="python",
        inputs={f"/inputs/{EXAMPLE}": CheckoutFile(path=f"recipes/{EXAMPLE}")},
        outputs=(EXAMPLE,),
    )
