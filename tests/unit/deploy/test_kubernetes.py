"""The objects of deploy/kubernetes/ agree with their schemas and with the pools table."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from millpond.monitor.pages.api import read_scaling
from millpond.monitor.pages.routes import ROUTES
from millpond.monitor.scaling import Demand
from millpond.tasks.pools import DRAIN_SECONDS, STOP_MARGIN_SECONDS, PoolsTable
from millpond.tasks.settings import Settings
from tests.unit.deploy import keda
from tests.unit.deploy.kubernetes import FOLDER, OVERLAYS, environment, megabytes, pods, rendered

POOLS = PoolsTable().pools
#: The memory of a worker beside its prefork children.
WORKER_MB = 512
#: For each overlay one: the oldest that is still looked after, and the newest that the schemas know.
VERSIONS = ("1.34", "1.37")


@pytest.mark.parametrize(("overlay", "version"), [*zip(OVERLAYS, VERSIONS, strict=True)])
def test_every_object_is_one(overlay: str, version: str) -> None:
    """Every object that is rendered has the fields and types of its schema, and no other."""
    for each in rendered(overlay).values():
        if each["apiVersion"].startswith("keda.sh/"):
            keda.validate(each)
        else:
            kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_there_is_a_deployment_for_each_pool(overlay: str) -> None:
    """Every pool of the table has a Deployment that runs it, and a budget for its disruption."""
    objects = rendered(overlay)
    workers = {
        name: each["spec"]["containers"][0]["args"]
        for name, each in pods(objects).items()
        if name.startswith("worker-")
    }
    assert workers == {f"worker-{pool}": ["worker", pool] for pool in POOLS}
    for pool in POOLS:
        budget = objects["PodDisruptionBudget", f"worker-{pool}"]["spec"]
        assert (
            budget["selector"]["matchLabels"].items()
            <= pods(objects)[f"worker-{pool}"]["metadata"]["labels"].items()
        )


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", [*(f"worker-{pool}" for pool in POOLS), "gateway"])
def test_a_pod_may_use_its_whole_deadline(overlay: str, name: str) -> None:
    """A pod is killed when the drain deadline and the margin after it are over, not before."""
    spec = pods(rendered(overlay))[name]["spec"]
    assert spec["terminationGracePeriodSeconds"] == DRAIN_SECONDS + STOP_MARGIN_SECONDS


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("pool", POOLS)
def test_only_a_loop_that_stands_still_restarts_a_worker(overlay: str, pool: str) -> None:
    """A broker that is away makes a worker not ready; it is no reason to start it again."""
    (container,) = pods(rendered(overlay))[f"worker-{pool}"]["spec"]["containers"]
    for probe, question in (("livenessProbe", "--live"), ("readinessProbe", "--ready")):
        assert container[probe]["exec"]["command"] == ["millpond", "health", pool, question]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pool_for_files_has_a_core_and_its_memory_for_each_slot(overlay: str) -> None:
    """Slots, processors and memory of the pool for files go together by the table's memory cap."""
    pod = pods(rendered(overlay))["worker-files"]
    slots = int(environment(pod, configured={})["MILLPOND_TABLE__POOLS__FILES__CONCURRENCY"])
    resources = pod["spec"]["containers"][0]["resources"]
    cap = POOLS["files"].max_memory_per_child_mb
    assert cap is not None
    assert int(resources["requests"]["cpu"]) == slots
    assert megabytes(resources["limits"]["memory"]) == slots * cap + WORKER_MB


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str) -> None:
    """No pod runs as root, has a capability, may write to its image, or holds a token of the cluster."""
    for name, pod in pods(rendered(overlay)).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            assert container["resources"]["limits"]["memory"], name
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_environment_is_one_that_the_settings_read(
    overlay: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every variable of every pod is a setting, and the slots of the pool for files arrive in the table."""
    objects = rendered(overlay)
    configured = objects["ConfigMap", "millpond"]["data"]
    file = tmp_path / "millpond.toml"
    file.write_text(objects["ConfigMap", "millpond-file"]["data"]["millpond.toml"])
    assert configured["MILLPOND_CONFIG"] == "/etc/millpond/millpond.toml"
    configured = {**configured, "MILLPOND_CONFIG": str(file)}
    for name, pod in pods(objects).items():
        with monkeypatch.context() as patch:
            for variable, value in environment(pod, configured=configured).items():
                if variable.startswith("MILLPOND_"):
                    hidden = "[]" if variable == "MILLPOND_GATEWAY__TOKENS" else value
                    patch.setenv(variable, re.sub(r"\$\(\w+\)", "secret", hidden))
            read = Settings()
            if name == "worker-files":
                assert read.table.pools["files"].concurrency == 2


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_behind_a_policy(overlay: str) -> None:
    """Traffic of every pod is closed but for the named ports; Flower can be reached, workers cannot."""
    objects = rendered(overlay)
    closed = objects["NetworkPolicy", "millpond-closed"]["spec"]
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed
    assert "egress" not in closed
    reached = []
    for name, pod in pods(objects).items():
        labels = pod["metadata"]["labels"]
        assert closed["podSelector"]["matchLabels"].items() <= labels.items(), name
        policies = [each["spec"] for (kind, _), each in objects.items() if kind == "NetworkPolicy"]
        reached += [
            name for policy in policies if policy.get("ingress") and _selects(policy["podSelector"], labels)
        ]
    assert set(reached) <= {"flower", "gateway", "valkey"}


@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_grows_with_all_that_waits_and_is_held(pool: str) -> None:
    """KEDA asks the monitor for a pool's tasks and their age: one pod for as many as its hands hold."""
    objects = rendered("autoscaled")
    spec = objects["ScaledObject", f"worker-{pool}"]["spec"]
    assert spec["scaleTargetRef"]["name"] == f"worker-{pool}"
    assert "replicas" not in objects["Deployment", f"worker-{pool}"]["spec"]
    asked = {trigger["metadata"]["valueLocation"]: trigger for trigger in spec["triggers"]}
    assert set(asked) == {"tasks", "oldest_seconds"}
    service = objects["Service", "flower"]
    address = f"http://flower.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}"
    for trigger in asked.values():
        assert trigger["metadata"]["url"].startswith(address)
        path = trigger["metadata"]["url"].removeprefix(address)
        [handler] = [handler for route, handler, _ in ROUTES if re.fullmatch(route, path)]
        assert handler.read is read_scaling, path
        assert trigger["metadata"]["valueLocation"] in Demand.__dataclass_fields__
    slots = {"files": 2}.get(pool, POOLS[pool].slots)
    assert int(asked["tasks"]["metadata"]["targetValue"]) == slots + POOLS[pool].prefetch


def test_there_is_one_object_a_file() -> None:
    """Every file holds one object, named in a kustomization."""
    for folder in (FOLDER / "base", *(FOLDER / "overlays" / overlay for overlay in OVERLAYS)):
        named = yaml.safe_load((folder / "kustomization.yaml").read_text())
        listed = {each for each in named["resources"] if each.endswith(".yaml")}
        listed |= {each["path"] for each in named.get("patches", [])}
        assert listed | {"kustomization.yaml"} == {each.name for each in folder.glob("*.yaml")}
        for name in listed:
            assert len(list(yaml.safe_load_all((folder / name).read_text()))) == 1, name


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    expressions = selector.get("matchExpressions", [])
    return wanted and all(labels.get(each["key"]) in each["values"] for each in expressions)
