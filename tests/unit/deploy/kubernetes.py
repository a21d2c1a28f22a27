"""Render an overlay of deploy/kubernetes/ with kubectl's own Kustomize, which needs no cluster."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.run_to_end import run_to_end

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("small", "autoscaled")

Objects = dict[tuple[str, str], dict[str, Any]]


@cache
def rendered(overlay: str) -> Objects:
    """Return the objects of an overlay by kind and name; skip where there is no kubectl."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed here")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    text = run_to_end(command, check=True).stdout
    return {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(text)}


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return the pod templates of everything that runs pods, by name."""
    return {
        name: each["spec"]["template"]
        for (kind, name), each in objects.items()
        if kind in ("Deployment", "StatefulSet")
    }


def megabytes(quantity: str) -> float:
    """Return a quantity of memory in MB, as tasks/pools.py counts them: 1 Mi is one."""
    number = quantity.rstrip("MGi")
    return float(number) * {"Mi": 1, "Gi": 1024}[quantity.removeprefix(number)]


def environment(pod: dict[str, Any], *, configured: dict[str, str]) -> dict[str, str]:
    """Return the variables of a pod's container; those of secrets are `secret`."""
    (container,) = pod["spec"]["containers"]
    given = {each["name"]: each.get("value", "secret") for each in container.get("env", [])}
    return {**(configured if container.get("envFrom") else {}), **given}
