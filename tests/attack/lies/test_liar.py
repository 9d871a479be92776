# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The lying QEMU: it is never handed out, it is qemu-lite but for its patches, and rows tell lies that it knows.

What is built and told is seen by `./doit attack`, not here: its build takes minutes.
"""

import re
from functools import partial
from pathlib import Path

from tools.attack.base.model import Attack
from tools.attack.catalogue.boot import fw_cfg
from tools.attack.catalogue.devices import completions
from tools.attack.lies import qemu as lying
from tools.attack.lies.start import must_be_told
from tools.pipeline.engine.step import CheckoutFile, Output, Step
from tools.pipeline.guest import qemu
from tools.pipeline.tasks.project import Project


def _files(step: Step) -> set[str]:
    return {reference.path for reference in step.inputs.values() if isinstance(reference, CheckoutFile)}


def test_it_is_in_no_deliverable(project: Project) -> None:
    """Neither the program, nor anything that its patches are in."""
    lies = f"{lying.folder(project)}/"
    assert any(path.startswith(lies) for path in _files(lying.step(project)))
    for deliverable in project.plan.deliverables():
        assert qemu.NAME in deliverable.outputs
        assert lying.NAME not in deliverable.outputs
    for step in project.plan.steps:
        assert step.name != lying.NAME
        assert not any(path.startswith(lies) for path in _files(step)), step.name


def test_it_is_qemu_lite_but_for_its_patches(project: Project) -> None:
    honest, liar = project.plan.qemu, lying.step(project)
    more = {path: reference for path, reference in liar.inputs.items() if path not in honest.inputs}
    assert {path: reference for path, reference in liar.inputs.items() if path in honest.inputs} == honest.inputs
    assert any(path.endswith(".patch") for path in more)
    assert (liar.tools, liar.environment) == (honest.tools, honest.environment)
    assert isinstance(next(iter(honest.inputs.values())), Output)


def _told(attack: Attack) -> list[str]:
    made = attack.attempt
    assert isinstance(made, partial)
    return list(made.keywords["lies"])


def test_rows_tell_lies_that_it_knows(project: Project, repository: Path) -> None:
    """Each line has a form that the program takes; the last of each form's words are its own."""
    text = "".join(path.read_text() for path in sorted((repository / lying.folder(project)).glob("*.patch")))
    forms = {
        verb: int(words) for verb, words in re.findall(r'^\+    \{ "([a-z]+)", ([0-9]), [0-9] \},', text, re.MULTILINE)
    }
    assert forms.keys() >= {"size", "item", "used"}
    lines = [line for attack in completions.attacks() for line in _told(attack)]
    for attack in fw_cfg.attacks():
        made = attack.attempt
        assert isinstance(made, partial)
        make = made.keywords["make"]
        lines += list(make.keywords["lie"].lies) if isinstance(make, partial) and "lie" in make.keywords else []
    assert len(lines) > 30
    for line in lines:
        words = line.split(" ")
        assert forms[words[0]] == len(words), line
    hows = {line.split(" ")[4] for line in lines if line.startswith("used ")}
    assert all(f'"{how}"' in text for how in hows)


def test_a_lie_about_the_directory_is_told_or_nothing_was_shown() -> None:
    """One that stands for the first does not do: the firmware may never have come to the others."""
    lies = ("size etc/acpi/tables 1 0xffffffff", "size etc/acpi/rsdp 1 0xffffffff", "item etc/acpi/rsdp 1 @marks")
    assert [must_be_told(lie, lies[0]) for lie in lies] == [True, True, False]
    assert must_be_told("item etc/e820 1 @map", "item etc/e820 1 @map")


def test_rows_without_a_line_are_of_files_that_the_firmware_must_have_looked_for() -> None:
    """What is only handed out is in no log of lies: the row names what was read, or its control reads it."""
    for attack in fw_cfg.attacks():
        made = attack.attempt
        assert isinstance(made, partial)
        make = made.keywords["make"]
        lie = make.keywords.get("lie") if isinstance(make, partial) else None
        if lie is not None and not lie.lies:
            assert lie.read or getattr(attack.control, "attempt", None) is fw_cfg.numbers, attack.name
