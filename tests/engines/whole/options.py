# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Options of `docker run`: a container says the same of itself with runc and with ours; or it is refused."""

import pytest

from tests.engines.kit import Docker, Runtime

NODES = "null zero full random urandom tty"
SAME = {
    "environment": ((), "env | sort | grep -v HOSTNAME"),
    "--env": (("--env=A=b  c", "--env=EMPTY="), "env | sort | grep -v HOSTNAME"),
    "--user by number": (("--user=33:29",), "id; touch /tmp/x && stat -c '%u:%g' /tmp/x"),
    "--user by name": (("--user=www-data",), "id"),
    "--user without an entry": (("--user=4321",), "id"),
    "--group-add": (("--user=33", "--group-add=29", "--group-add=77"), "id"),
    "--workdir": (("--workdir=/var/www",), "pwd; cat index.html"),
    "--workdir that is not there": (("--workdir=/new/one",), "pwd; stat -c '%a %u %g' ."),
    "--hostname": (("--hostname=example",), "hostname; cat /etc/hostname; echo $HOSTNAME"),
    "--domainname": (("--hostname=a", "--domainname=example.org"), "cat /proc/sys/kernel/domainname"),
    "--add-host": (("--add-host=other:192.0.2.7",), "grep other /etc/hosts"),
    "--dns": (("--dns=192.0.2.53", "--dns-search=example.org"), "grep -v ^# /etc/resolv.conf"),
    "--entrypoint": (("--entrypoint=/bin/echo",), "-n $HOME"),
    "umask": ((), "umask; touch /tmp/x; stat -c %a /tmp/x"),
    "capabilities": ((), "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"),
    "capabilities of another": (("--user=33",), "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"),
    "--cap-drop": (("--cap-drop=ALL", "--cap-add=CHOWN"), "grep ^Cap /proc/self/status; chown 1 /tmp; kill -0 1"),
    "--cap-add": (("--cap-add=SYS_TIME",), "grep ^Cap /proc/self/status"),
    "no-new-privileges": (("--security-opt=no-new-privileges",), "grep NoNewPrivs /proc/self/status"),
    "seccomp=unconfined": (("--security-opt=seccomp=unconfined",), "grep Seccomp: /proc/self/status"),
    "seccomp": ((), "unshare -m true; unshare -U true; mount -t tmpfs x /tmp; echo $?"),
    "--ulimit": (("--ulimit=nofile=100:200", "--ulimit=core=0"), "ulimit -Sn; ulimit -Hn; ulimit -c"),
    "--read-only": (("--read-only",), "touch /x; echo $?; touch /etc/x; echo $?; touch /dev/shm/x; echo $?"),
    "--tmpfs": (("--tmpfs=/t:size=1m,mode=1770", "--read-only"), "stat -c %a:%u /t; df -Pk /t | grep -o ' [0-9]* '"),
    "--shm-size": (("--shm-size=4m",), "df -Pk /dev/shm | awk 'NR > 1 {print $2}'; stat -c %a /dev/shm"),
    "--sysctl": (("--sysctl=net.ipv4.ip_unprivileged_port_start=5",), "cd /proc/sys/net/ipv4; cat ip_unprivileged_*"),
    "--sysctl of IPC": (("--sysctl=kernel.msgmax=4321",), "cat /proc/sys/kernel/msgmax"),
    "masked paths": ((), "cd /proc; cat kcore keys timer_list | wc -c; ls acpi scsi /sys/firmware | wc -l"),
    "paths that are read-only": ((), "echo 1 >/proc/sys/kernel/panic; echo $?; echo h >/proc/sysrq-trigger; echo $?"),
    "devices": ((), f"cd /dev; stat -c '%n %F %a %t:%T' {NODES}; readlink fd stdin stdout ptmx"),
    "mounts": ((), "grep -E ' /(proc|sys|dev|dev/(pts|shm|mqueue)) ' /proc/self/mounts | cut -d' ' -f2,3 | sort -u"),
    "a layer above": ((), "cat /var/www/index.html; ls /etc/gone 2>&1; echo w >/var/www/new && cat /var/www/new"),
    "modes of the image": ((), "stat -c '%n %a %u %g' /root /tmp /bin/busybox /etc/passwd"),
    "--volume, a folder": (("--volume=/srv/folder:/data:ro",), "cd /data; find . | sort; cat one deep/two; touch x"),
    "--volume, a file": (("--volume=/srv/folder/one:/etc/motd:ro",), "cat /etc/motd; echo >/etc/motd; echo $?"),
    "--oom-score-adj": (("--oom-score-adj=100",), "echo"),
    "--log-driver": (("--log-driver=none",), "echo here"),
    "--label, --name": (("--label=a=b", "--name=odd.name_-1"), "echo here"),
}  # fmt: skip


def prepare(docker: Docker) -> None:
    docker.box.write("/srv/folder/one", "first\n")
    docker.box.write("/srv/folder/deep/two", "second\n", mode=0o600)


@pytest.mark.parametrize(("options", "script"), SAME.values(), ids=SAME)
def test_the_same_as_with_runc(
    dockerd: Docker, runtimes: dict[str, Runtime], options: tuple[str, ...], script: str
) -> None:
    prepare(dockerd)
    argv = [script] if any("entrypoint" in option for option in options) else ["sh", "-c", script]
    found = [dockerd.using(runtimes[name]).run("--rm", *options, argv=argv) for name in ("runc", "sev")]
    assert found[1] == found[0], found[1].complaint
    assert found[0].out.strip() or "oom" in options[0]


REFUSED = {
    "--privileged": (("--privileged",), "refused (from --privileged): a guest has none of the host's devices"),
    "--device": (("--device=/dev/fuse",), "refused (from --device"),
    "--network host": (("--network=host",), "refused (from --network host)"),
    "--pid host": (("--pid=host",), "refused (from --pid host)"),
    "--ipc host": (("--ipc=host",), "refused (from --ipc host)"),
    "--uts host": (("--uts=host",), "refused (from --uts host)"),
    "a writable folder": (("--volume=/srv/folder:/data",), "mount it read-only (:ro), or name /srv/folder in"),
    "a writable volume": (("--volume=named:/data",), "mount it read-only (:ro), or name named in"),
}


@pytest.mark.parametrize(("options", "reason"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_reason(
    dockerd: Docker, runtimes: dict[str, Runtime], options: tuple[str, ...], reason: str
) -> None:
    """docker shows it in one line, and nothing stays; the control: runc runs it."""
    prepare(dockerd)
    done = dockerd.using(runtimes["sev"]).run("--rm", *options, argv=["true"])
    assert (done.status, done.out) == (125, b""), done
    assert reason in done.complaint
    assert "Traceback" not in done.complaint
    assert dockerd("ps", "--all", "--quiet") == ""
    control = dockerd.using(runtimes["runc"]).run("--rm", *options, argv=["true"])
    # Debian 12's runc gives all capabilities or none: where this machine's root has not all, it refuses by itself.
    assert control.status == 0 or "unable to apply caps" in control.complaint, control


def test_another_containers_namespaces(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    other = dockerd.detached("--name=other", "--ipc=shareable", argv=["sleep", "1000"])
    try:
        for option in ("--network=container:other", "--pid=container:other", "--ipc=container:other"):
            done = dockerd.using(runtimes["sev"]).run("--rm", option, argv=["true"])
            assert done.status == 125, option
            assert f"refused (from {option.split('=')[0]}" in done.complaint, done
            assert dockerd.run("--rm", option, argv=["true"]).status == 0, option
    finally:
        dockerd("rm", "--force", other)


def test_memory_and_processors(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    """They are the guest's: it has as much as was asked for, and is not killed by its own envelope when it uses it."""
    ours = dockerd.using(runtimes["sev"])
    script = "nproc; awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo"
    processors, size = ours.says("--rm", "--memory=384m", "--cpus=2", argv=["sh", "-c", script]).split()
    assert processors == "2"
    assert 300 < int(size) <= 384
    # A little less than all there is: more than that, and the guest's kernel would rightly end it.
    fill = "dd if=/dev/zero of=/dev/shm/x bs=1M count=150 2>/dev/null; wc -c </dev/shm/x"
    assert ours.says("--rm", "--memory=384m", "--shm-size=200m", argv=["sh", "-c", fill]) == f"{150 << 20}\n"


def test_init(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    """Somebody else is the first process, and takes care of orphans."""
    script = "(sleep 0.1 &) ; sleep 1; ps -o stat | grep -c Z; echo $(($$ > 1))"
    for name in ("runc", "sev"):
        assert dockerd.using(runtimes[name]).says("--rm", "--init", argv=["sh", "-c", script]) == "0\n1\n", name


def test_what_was_put_into_a_container_before_its_start(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    """The engine's own layer is no part of what was measured: never mixed in silently."""
    ours = dockerd.using(runtimes["sev"])
    dockerd.box.write("/srv/file", "put\n")
    for engine, starts in ((dockerd, True), (ours, False)):
        name = dockerd.box.check(
            "docker", "create", f"--runtime={engine.runtime.name}", engine.image, "cat", "/put"
        ).strip()
        dockerd("cp", "/srv/file", f"{name}:/put")
        done = dockerd.box.run("docker", "start", "--attach", name)
        assert ((done.status, done.text) == (0, "put\n")) == starts, done
        assert ("a container starts from its image alone" in done.complaint) == (not starts), done
        dockerd("rm", "--force", name)
