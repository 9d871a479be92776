# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps are data: what can be said of them before anything runs."""

import pytest

from tools.pipeline.engine.step import Blob, CheckoutFile, Literal, Output, Reference, Step, closure


def step(name: str, **inputs: Reference) -> Step:
    return Step(
        name=name,
        title=name,
        argv=("true",),
        tools="build",
        inputs={f"/inputs/{path}": reference for path, reference in inputs.items()},
        outputs=("out",),
    )


def test_constructing_reads_nothing() -> None:
    """Files and trees that are not there are nobody's business yet."""
    made = step("a", file=CheckoutFile(path="no/such/file"), pin=Blob(sha256="0" * 64, size=1, where="lock: pin"))
    assert made.needs == ()
    assert made.output("out") == Output(step=made, name="out")


def test_what_a_step_needs() -> None:
    first, second = step("a"), step("b", x=Literal(data=b""))
    third = step("c", y=second.output("out"), x=first.output("out"), z=first.output("out"))
    assert third.needs == (first, second)


def test_closure_has_needed_steps_first_and_each_once() -> None:
    a = step("a")
    b, c = step("b", x=a.output("out")), step("c", x=a.output("out"))
    d = step("d", x=c.output("out"), y=b.output("out"))
    names = [made.name for made in closure(d, b)]
    assert sorted(names) == ["a", "b", "c", "d"]
    assert names.index("a") < names.index("b") < names.index("d")
    assert names.index("a") < names.index("c") < names.index("d")


def test_one_name_means_one_step() -> None:
    with pytest.raises(ValueError, match="two different steps are called a"):
        closure(step("a"), step("a", x=Literal(data=b"other")))
    assert closure(step("a"), step("a")) == (step("a"),)


@pytest.mark.parametrize("path", ["relative", "/", "/a//b", "/a/../b", "/./a", "/a/"])
def test_inputs_lie_at_plain_absolute_paths(path: str) -> None:
    with pytest.raises(ValueError, match="no plain absolute path"):
        Step(name="a", title="a", argv=(), tools="t", inputs={path: Literal(data=b"")}, outputs=())


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", ".."])
def test_outputs_have_plain_names(name: str) -> None:
    with pytest.raises(ValueError, match="no plain file name"):
        Step(name="a", title="a", argv=(), tools="t", inputs={}, outputs=(name,))


def test_an_output_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="a has no output 'other'"):
        step("a").output("other")
