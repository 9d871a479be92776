# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Containers whose workload document is enforced: what stays shut, and runtimes of a hostile host that try.

A liar is sev-runtime itself with one function replaced. What it does to a container the agent must notice; the control
is the same container with the honest runtime.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.boot.test_measured_cmdline import _builtin
from tests.engines import machine
from tests.engines.kit import Docker, Runtime, guests
from tools.attack.base.target import Target
from tools.attack.guests import firmware
from tools.attack.guests.firmware import Became, Host
from tools.pipeline.engine.tree import Tree
from tools.pipeline.measure.digest import Inputs, Launch
from tools.pipeline.tasks.project import Project

_LIAR = """\
#!/usr/bin/python3 -IS
import dataclasses, sys
sys.path.insert(0, "/srv/source")
from tools.launcher.channel import requests
from tools.runtime.life import boot
{lie}
from tools.runtime.cli.main import main
sys.exit(main(["--config=/etc/sev/liar.toml", *sys.argv[1:]]))
"""
LIES = {
    "document": """
honest = requests.workload
requests.workload = lambda document: honest(document.replace(b'"honest"', b'"forged"'))
""",
    "environment": """
honest = requests.run
requests.run = lambda process, what: honest(process, dataclasses.replace(what, env=[*what.env, b"LD_PRELOAD=/x"]))
""",
    "stdin": """
honest, workload = boot.translate, boot._workload
boot.translate = lambda *words, **more: honest(*words, **(more | {"stdin": False}))
def opened(translated):
    found = workload(translated)
    doors = dataclasses.replace(found.what.doors, stdin=True)
    return dataclasses.replace(found, what=dataclasses.replace(found.what, doors=doors))
boot._workload = opened
""",
}
HONEST = ("sh", "-c", "echo $0; cat", "honest")
NONE = ("--rm", "-i", "--network=none")


@pytest.fixture(scope="module")
def liars(dockerd: Docker, runtimes: dict[str, Runtime]) -> Iterator[dict[str, Runtime]]:
    """By what they lie about; dockerd knows them while these tests run."""
    box = dockerd.box
    box.check(f"{machine.OUT}/sev-runtime", "source", "/srv/source")
    lines = ["schema = 1", 'protection = "enforce"', f'artifacts = "{machine.OUT}/runtime.toml"']
    lines += [f'network-artifacts = "{machine.OUT}/runtime-network.toml"', f'mkfs = "{machine.OUT}/mkfs.erofs"']
    box.write("/etc/sev/liar.toml", "".join(f"{line}\n" for line in lines))
    found = {}
    for name, lie in {**LIES, "nothing": ""}.items():
        path = f"/usr/local/bin/liar-{name}"
        box.write(path, _LIAR.format(lie=lie), mode=0o755)
        found[name] = Runtime(name=f"liar-{name}", path=path)
    known, dockerd.runtimes = dockerd.runtimes, (*dockerd.runtimes, *found.values())
    dockerd.stop()
    dockerd.start()
    yield found
    dockerd.runtimes = known


@pytest.mark.parametrize("lie", LIES)
def test_a_host_that_lies(dockerd: Docker, liars: dict[str, Runtime], lie: str) -> None:
    """Nothing of the container's own is seen; without the lie the same program is served."""
    done = dockerd.using(liars[lie]).run(*NONE, argv=HONEST, stdin=b"secret\n")
    assert done.status != 0, done
    assert b"honest" not in done.out if lie != "stdin" else b"secret" not in done.out
    assert b"forged" not in done.out
    assert "Traceback" not in done.complaint
    done = dockerd.using(liars["nothing"]).run(*NONE, argv=HONEST, stdin=b"secret\n")
    assert (done.status, done.out) == (0, b"honest\nsecret\n"), done


@pytest.fixture
def enforced(dockerd: Docker, runtimes: dict[str, Runtime]) -> Iterator[Docker]:
    """docker with the configuration that enforces the document without SEV."""
    docker = dockerd.using(runtimes["sev-enforce"])
    yield docker
    for name in docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", name)


def test_exec_is_closed(enforced: Docker, runtimes: dict[str, Runtime]) -> None:
    """Signals and output are not; an unprotected container lets anything be executed."""
    script = ["sh", "-c", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.1; done"]
    name = enforced.detached("--network=none", argv=script)
    enforced.until_log(name, "ready")
    done = enforced.box.run("docker", "exec", name, "id")
    assert done.status in {126, 127}, done
    assert done.out == b"" or b"uid" not in done.out
    assert "workload document" in done.complaint + done.text
    assert enforced.inspect(name, ".State.Running") is True
    enforced("stop", name)
    assert enforced.inspect(name, ".State.ExitCode") == 4
    control = enforced.using(runtimes["sev"])
    name = control.detached("--network=none", argv=script)
    assert "uid=0" in control("exec", name, "id")


def document(docker: Docker, name: str) -> dict[str, object]:
    """What `sev-runtime document` prints of a running container."""
    return dict(json.loads(document_text(docker, name)))


def document_text(docker: Docker, name: str) -> str:
    identity = docker.inspect(name, ".Id")
    root = docker.box.check("find", "/run", "-type", "d", "-name", identity, "-path", "*runtime-*").split()[0]
    program = f"{machine.OUT}/sev-runtime"
    return docker.box.check(program, "--root", str(Path(root).parent), "document", identity)


def test_stdin_is_closed_unless_asked_for(enforced: Docker) -> None:
    """As the document says, in both cases."""
    for options, expected in ((("--detach",), False), (("--detach", "-i"), True)):
        name = enforced.box.check(*enforced.words(*options, "--network=none", argv=["sleep", "1000"])).strip()
        process = document(enforced, name)["process"]
        assert isinstance(process, dict)
        assert process["host"]["stdin"] is expected


def test_a_protected_container_is_refused_here(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    """No machine of these tests encrypts: there is no way from the default configuration to a guest in the open."""
    done = dockerd.using(runtimes["sev-protected"]).run(*NONE, argv=["true"])
    assert done.status in {125, 126, 127}
    assert "Traceback" not in done.complaint
    assert "cannot run a container" in done.complaint


def test_its_inputs_pass_the_firmware(enforced: Docker, artifacts: Path, qemu: Path, tmp_path: Path) -> None:
    """What QEMU was given for a container boots under the hashes table of its digest; with another document not."""
    name = enforced.detached("--network=none", argv=["sh", "-c", "cat /proc/cmdline; sleep 1000"])
    enforced.until_log(name, "initrd=initrd")
    (tmp_path / "workload.json").write_text(document_text(enforced, name))
    host = Host.of(Target(name="shipped", folder=artifacts), qemu, ("--workload", str(tmp_path / "workload.json")))
    assert f"{host.cmdline} initrd=initrd\n" in f" {enforced.logs(name)[0]}"
    (words,) = guests(enforced.box).values()
    assert f" -append {host.cmdline} " in words
    (tmp_path / "same").mkdir()
    assert firmware.start(host, tmp_path / "same") is Became.BOOTED
    other = subprocess.run(
        ["sed", "s/sleep/sloop/", tmp_path / "workload.json"], capture_output=True, check=True
    ).stdout
    (tmp_path / "other.json").write_bytes(other)
    forged = Host.of(Target(name="shipped", folder=artifacts), qemu, ("--workload", str(tmp_path / "other.json")))
    changed = {**vars(forged), "table": host.table}
    (tmp_path / "other").mkdir()
    assert firmware.start(Host(**changed), tmp_path / "other") is Became.REFUSED


PREDICTED = {
    "plain": (),
    "without a network": ("--network=none",),
    "options": ("--network=none", "--read-only", "--env=A=b  c", "--user=www-data", "--tmpfs=/t:size=1m", "--cpus=2",
                "--cap-drop=all", "--ulimit=nofile=100:200", "--hostname=example", "--memory=384m", "--init"),
    "a terminal": ("--network=none", "--interactive", "--tty"),
}  # fmt: skip


@pytest.mark.parametrize("options", PREDICTED.values(), ids=PREDICTED)
def test_the_predicted_digest_is_the_launched_one(
    enforced: Docker, project: Project, artifacts: Path, boot_tree: Tree, options: tuple[str, ...]
) -> None:
    """Of the image's archive by somebody else in another root; of the running guest by its own /proc/cmdline."""
    argv = ["sh", "-c", "cat /proc/cmdline; sleep 1000"]
    name = enforced.detached(*options, argv=argv)
    enforced.until_log(name, "initrd=initrd")
    line = enforced.logs(name)[0].strip().removesuffix(" initrd=initrd")

    jail = ["bwrap", "--unshare-all", "--uid", "4321", "--gid", "4321", "--ro-bind", str(boot_tree.path), "/"]
    jail += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", str(artifacts), "/out"]
    jail += ["--ro-bind", str(enforced.box.share), "/inputs", "--clearenv", "--setenv", "PATH", "/usr/bin"]
    words = [word for option in options for word in option.split("=", 1)]
    command = [
        "/out/sev-launch",
        "digest",
        "--json",
        "--mode",
        "all",
        "--image",
        "/inputs/image.tar",
        *words,
        "--",
        *argv,
    ]
    found = json.loads(subprocess.run([*jail, *command], capture_output=True, check=True).stdout)
    assert line.endswith(found["kernel_cmdline"])

    # What the kernel itself puts before it is the kernel's, which is measured.
    own = line[: -len(found["kernel_cmdline"])]
    assert own == _builtin(project.root, project.recipes.profile("production"))
    files = found["artifacts"]
    launch = Launch(
        Inputs(
            firmware=artifacts / files["firmware"]["file"],
            firmware_size=files["firmware"]["size"],
            kernel=artifacts / files["kernel"]["file"],
            initramfs=artifacts / files["initramfs"]["file"],
            cmdline=line.removeprefix(own),
        )
    )
    signature, vcpus = int(found["cpu_signature"], 16), found["vcpus"]
    modes = {one["mode"]: one["digest"] for one in found["digests"] if not one["legacy_vm_type"]}
    assert modes["snp"] == launch.snp(signature, up_to=vcpus)[-1]
    assert modes["sev"] == launch.sev()
    assert modes["sev-es"] == launch.sev_es(signature, legacy_vm_type=False, up_to=vcpus)[-1]
    assert ("network" in files["kernel"]["file"]) == ("--network=none" not in options)
