"""The deployment files: three instances behind nginx lose nothing while they are restarted; manifests are valid."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from bench import faults
from bench.rig import Rig, get, rig, wait_ready
from config import Settings
from embedded.parts import free_port
from tests.conftest import PROJECT

DEPLOY = PROJECT / "deploy"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
NGINX_PORT = 8080


@pytest.fixture
def made(clean_environment: None) -> Iterator[Rig]:
    with rig() as made:
        yield made


def start_nginx(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    """nginx with the very file of `deploy/`, before these instances."""
    assert NGINX
    shutil.copy(DEPLOY / "nginx.conf", folder)
    servers = (f"server 127.0.0.1:{port} max_fails=2 fail_timeout=2s;\n" for port in ports)
    (folder / "upstream.conf").write_text("".join(servers))
    command = [NGINX, "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    process = subprocess.Popen(command)
    wait_ready(NGINX_PORT)
    return process


@pytest.mark.skipif(not NGINX, reason="nginx is not installed (Debian: apt install nginx-light)")
async def test_a_rolling_restart_behind_nginx_loses_nothing(made: Rig, tmp_path: Path) -> None:
    """Three instances, restarted one after the other under load: every event is ACKed, answered and delivered once."""
    stub = made.stub(0.05)
    ports = [free_port() for _ in range(3)]
    settings = {"DRAIN_TIMEOUT": "5"}
    instances = []
    for port in ports:
        made.service(stub, port, settings=settings)
        instances.append(made.processes[-1])
    nginx = start_nginx(tmp_path, ports)
    try:
        run = f"r{time.time_ns()}"
        sending = asyncio.create_task(faults.send(NGINX_PORT, 1_500, 150, run))
        for port, instance in zip(ports, instances, strict=True):
            await asyncio.sleep(1)
            instance.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(instance.wait, 20) == 0
            made.processes.remove(instance)
            await asyncio.to_thread(made.service, stub, port, settings=settings)
        history = await sending
        await faults.drained(made.addresses["DATABASE_URL"])
        verdict = await faults.check(made, stub, history, run)
        assert get(NGINX_PORT, "/health/live")["data"]["status"] == "alive"
    finally:
        nginx.terminate()
        nginx.wait(10)
    assert verdict["accepted"] == verdict["delivered"] == 1_500
    bad = ("expired", "failed", "repeated", "lost", "delivered twice", "answered twice", "never ACKed")
    assert {name: verdict[name] for name in bad} == dict.fromkeys(bad, 0)
    assert history.retries == 0, "the router never saw that instances were restarted"


def test_upstream_and_compose_name_the_same_instances() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    listed = {
        line.split()[1].split(":")[0]
        for line in (DEPLOY / "upstream.conf").read_text().splitlines()
        if "server " in line
    }
    instances = {name for name in compose["services"] if name.startswith("sidecast-")}
    assert listed == instances == {"sidecast-1", "sidecast-2", "sidecast-3"}
    for name in instances:
        environment = compose["services"][name]["environment"]
        assert {variable.lower() for variable in environment} <= Settings.model_fields.keys()


def manifests() -> list[tuple[str, dict[str, Any]]]:
    return [(path.name, yaml.safe_load(path.read_text())) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))]


@pytest.mark.parametrize(("name", "manifest"), manifests(), ids=[name for name, _ in manifests()])
def test_manifests_are_valid(name: str, manifest: dict[str, Any]) -> None:
    assert kubernetes_validate.validate(manifest, "1.33", strict=True)
    manifest["spec"]["no such field"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_manifests_belong_together() -> None:
    found = {manifest["kind"]: manifest for _, manifest in manifests()}
    assert found.keys() == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
    pod = found["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    assert pod["metadata"]["labels"] == found["Service"]["spec"]["selector"]
    assert pod["metadata"]["labels"] == found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > Settings.model_fields["drain_timeout"].default + 10
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
