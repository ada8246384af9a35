"""The Kubernetes manifests as documents, and the pods that they create."""

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "cluster_configs" / "kubernetes"

Document = dict[str, Any]


@cache
def documents(*comments: str) -> dict[str, Document]:
    """Return the documents that `kubectl apply --kustomize` sends, by kind and name.

    The given commented lines of kustomization.yaml are enabled, and the CronJob always is.
    """
    with tempfile.TemporaryDirectory() as empty:
        folder = shutil.copytree(FOLDER, Path(empty) / "copy")
        kustomization = folder / "kustomization.yaml"
        text = kustomization.read_text()
        for line in ("  # - nightly.yaml", *comments):
            assert line in text
            text = text.replace(line, line.replace("# ", "", 1))
        kustomization.write_text(text)
        built = subprocess.run(["kubectl", "kustomize", folder], stdout=subprocess.PIPE, check=True).stdout
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(built)}


@cache
def pods() -> dict[str, Document]:
    """Return the pods that the manifests create, with their labels, as documents."""
    cluster = documents()["DaskCluster/nmf"]
    labels = cluster["metadata"]["labels"] | {"dask.org/cluster-name": "nmf"}
    found = {
        component: (labels | {"dask.org/component": component}, cluster["spec"][component]["spec"])
        for component in ("scheduler", "worker")
    }
    for name, job in (
        ("fit", documents()["Job/nmf-fit"]),
        ("nightly", documents()["CronJob/nmf-nightly"]["spec"]["jobTemplate"]),
    ):
        template = job["spec"]["template"]
        found[name] = (template["metadata"]["labels"], template["spec"])
    return {
        name: {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        for name, (labels, spec) in found.items()
    }


def container(pod: Document) -> Document:
    """Return the only container of a pod."""
    (only,) = pod["spec"]["containers"]
    assert isinstance(only, dict)
    return only


NANNY = 2**28  # bytes that the process beside a worker may take
