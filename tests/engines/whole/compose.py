# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""docker compose with three services on one network, two of them ours."""

from tests.engines.box import wait
from tests.engines.kit import Docker

SERVICES = """\
services:
  web:
    image: busybox:test
    runtime: {runtime}
    command: ["sh", "-c", "echo from $$NAME >/tmp/index.html; httpd -f -p 80 -h /tmp"]
    environment: {{NAME: web}}
    ports: ["127.0.0.1:8088:80"]
  middle:
    image: busybox:test
    runtime: {runtime}
    depends_on: [web]
    command: ["sh", "-c", "until wget -qO /tmp/index.html http://web/; do sleep 0.3; done; httpd -f -p 80 -h /tmp"]
    read_only: true
    tmpfs: ["/tmp"]
  client:
    image: busybox:test
    runtime: runc
    depends_on: [middle]
    command: ["sh", "-c", "until wget -qO- http://middle/; do sleep 0.3; done; sleep 1000"]
"""


def test_three_services(docker: Docker) -> None:
    docker.box.write("/srv/app/compose.yaml", SERVICES.format(runtime=docker.runtime.name))
    compose = ("compose", "--project-directory", "/srv/app")
    try:
        docker(*compose, "up", "--detach")
        wait(lambda: "from web" in docker(*compose, "logs", "client"), why="the page by way of all three")
        assert docker.box.check("curl", "--silent", "--max-time", "60", "http://127.0.0.1:8088/") == "from web\n"
        assert docker(*compose, "exec", "-T", "middle", "cat", "/tmp/index.html") == "from web"
        assert docker(*compose, "ps", "--services", "--status", "running").split() == ["client", "middle", "web"]
        docker(*compose, "restart", "--timeout", "1", "middle")
        again = ("exec", "-T", "client", "wget", "-qO-", "http://middle/")
        wait(lambda: "from web" in docker.box.run("docker", *compose, *again).text, why="its second life")
    finally:
        docker(*compose, "down", "--timeout", "1")
    assert docker("ps", "--all", "--quiet") == ""
