# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The program that writes launch-digests.json, run as a build step runs it: on declared files and nothing else."""

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import pytest

from tests.pipeline import sample
from tests.pipeline.measure.test_table import GUEST
from tests.sev.firmware_kit import Image
from tools.pipeline.engine.step import CheckoutFile, Literal
from tools.pipeline.measure import launch_digests, program, table
from tools.pipeline.measure.table import Guest


def wheel(folder: Path) -> Path:
    """The installed library as the one file that pip fetched: pure Python, importable as it is."""
    path = folder / "sev_snp_measure.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in metadata.files("sev-snp-measure") or ():
            if file.suffix in (".py", "") and ".." not in file.parts:
                archive.write(Path(str(file.locate())), str(file))
    return path


@dataclass(frozen=True, kw_only=True)
class Done:
    status: int
    err: str


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A folder with the declared inputs."""

    folder: Path
    wheel: Path

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"

    @property
    def output(self) -> Path:
        return self.folder / "launch-digests.json"

    def run(self, guest: Guest = GUEST) -> Done:
        values = self.folder / "guest.json"
        values.write_bytes(program.guest_json(guest))
        done = subprocess.run(
            # No site-packages: what is imported is the standard library, the wheel and the declared files.
            [sys.executable, "-S", "-s", "-m", "tools.pipeline.measure.program", values, self.artifacts, self.output],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.folder / 'checkout'}:{self.wheel}"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Done(status=done.returncode, err=done.stderr)


def declared(repository: Path) -> list[str]:
    """The files of the checkout that the step lists as its inputs."""
    loaded = sample.recipes()
    some = Literal(data=b"")
    step = launch_digests.step(
        loaded.profile("production"),
        loaded.guest,
        name="x",
        root=repository,
        files=GUEST.artifacts,
        artifacts=dict.fromkeys(GUEST.artifacts, some),
        wheel=some,
        version="1.2",
    )
    assert step.argv[:3] == ("python3", "-m", "tools.pipeline.measure.program")
    return [reference.path for reference in step.inputs.values() if isinstance(reference, CheckoutFile)]


@pytest.fixture
def sandbox(tmp_path: Path, repository: Path) -> Sandbox:
    for name in declared(repository):
        target = tmp_path / "checkout" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((repository / name).read_bytes())
    made = Sandbox(folder=tmp_path, wheel=wheel(tmp_path))
    made.artifacts.mkdir()
    for name, content in (("OVMF.fd", Image().build()), ("vmlinuz", b"kernel"), ("initramfs.cpio.zst", b"initramfs")):
        (made.artifacts / name).write_bytes(content)
    return made


def in_process(sandbox: Sandbox, guest: Guest) -> str:
    return table.serialise(table.document(guest, {role: sandbox.artifacts / n for role, n in guest.artifacts.items()}))


@pytest.mark.parametrize("initramfs", [True, False])
def test_it_writes_the_document(sandbox: Sandbox, initramfs: bool) -> None:
    names = {role: name for role, name in GUEST.artifacts.items() if initramfs or role != "initramfs"}
    guest = replace(GUEST, artifacts=names)
    assert sandbox.run(guest) == Done(status=0, err="")
    assert sandbox.output.read_text() == in_process(sandbox, guest)
    artifacts = json.loads(sandbox.output.read_text())["depends_on"]["artifacts"]
    assert (artifacts["initramfs"] is not None) is initramfs


def test_an_unknown_cpu_is_the_users_mistake(sandbox: Sandbox) -> None:
    done = sandbox.run(replace(GUEST, cpu="host"))
    assert done.status == 2
    assert done.err.startswith("recipes/guest.toml: machine.cpu: CPU model 'host': its CPUID signature is not known")
    assert done.err.count("\n") == 1
    assert not sandbox.output.exists()


def test_what_cannot_be_measured_is_a_failed_build(sandbox: Sandbox) -> None:
    (sandbox.artifacts / "OVMF.fd").write_bytes(bytes(Image().build())[:-4096])
    done = sandbox.run()
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert f"{sandbox.artifacts}/OVMF.fd: firmware has 258048 bytes, wanted 262144" in done.err
    (sandbox.artifacts / "OVMF.fd").write_bytes(Image().build())
    (sandbox.artifacts / "vmlinuz").unlink()
    done = sandbox.run()
    assert (done.status, done.err) == (1, f"{sandbox.artifacts}/vmlinuz: No such file or directory\n")
    assert not sandbox.output.exists()
