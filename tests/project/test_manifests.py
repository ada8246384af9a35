"""The manifests of Kubernetes: valid by its schemas, refused with a wrong key, in step with the command.

No API server runs here, so none is applied.
"""

import copy
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import click
import dask
import jsonschema
import kubernetes_validate
import pytest
import yaml
from dask.utils import parse_bytes
from distributed.cli import dask_scheduler, dask_worker
from support.manifests import FOLDER, NANNY, Document, container, documents, pods

from dask_nmf.cli.app import app
from dask_nmf.cli.process.exit_codes import ExitCode

COMMANDS = {
    "fit": app.commands["fit"],
    "scheduler": dask_scheduler.main,
    "worker": dask_worker.main,
}
FREE = {"data", "labels", "limits", "matchLabels", "requests", "selector"}  # whose keys are the user's
OPERATOR = "dask-kubernetes==2026.3.0"
CRD = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"


def words(pod: Document) -> list[str]:
    """Of its command, without the program."""
    given = container(pod).get("command", ["dask-nmf", *container(pod).get("args", [])])
    return list(map(str, given[1:]))


def parsed(pod: Document) -> dict[str, Any]:
    """The options of its command, read by the command itself."""
    name, *rest = words(pod)
    return COMMANDS[name].make_context(name, rest).params


def mappings(part: Any) -> Iterator[Document]:
    """All whose keys a schema knows, from the outside in."""
    if isinstance(part, dict):
        yield part
        for key, inner in part.items():
            if key not in FREE:
                yield from mappings(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from mappings(inner)


def core() -> list[Document]:
    """Those that Kubernetes itself has a schema for; of the DaskCluster its pods and its service."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "nmf-scheduler"},
        "spec": documents()["DaskCluster/nmf"]["spec"]["scheduler"]["service"],
    }
    own = [each for each in documents().values() if each["kind"] != "DaskCluster"]
    return [*own, pods()["scheduler"], pods()["worker"], service]


@pytest.mark.parametrize("version", ["1.33", kubernetes_validate.latest_version()])
def test_documents_are_valid(version: str) -> None:
    for document in core():
        kubernetes_validate.validate(document, version, strict=True)


def test_an_unknown_key_is_refused_wherever_it_is() -> None:
    for document in core():
        spoilt = copy.deepcopy(document)
        for mapping in mappings(spoilt):
            mapping["unknown"] = 1
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(spoilt, "1.33", strict=True)
            del mapping["unknown"]


VOLUME = ("# components:", "#   - volume")
DATED = ("# patches:", "#   - path: dated.yaml")


@pytest.mark.parametrize("comments", [VOLUME, DATED, (*VOLUME, *DATED)], ids=["volume", "dated", "both"])
def test_variants_are_valid(comments: tuple[str, ...]) -> None:
    for document in documents(*comments).values():
        if document["kind"] != "DaskCluster":
            kubernetes_validate.validate(document, "1.33", strict=True)


def test_a_volume_takes_the_place_of_the_object_store() -> None:
    found = documents(*VOLUME)
    claim = found["PersistentVolumeClaim/nmf-data"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]  # of pods on several nodes
    cluster = found["DaskCluster/nmf"]["spec"]
    assert cluster["scheduler"] == documents()["DaskCluster/nmf"]["spec"]["scheduler"]  # which reads no V
    jobs = found["Job/nmf-fit"], found["CronJob/nmf-nightly"]["spec"]["jobTemplate"]
    for spec in (cluster["worker"]["spec"], *(job["spec"]["template"]["spec"] for job in jobs)):
        assert {"name": "data", "persistentVolumeClaim": {"claimName": "nmf-data"}} in spec["volumes"]
        (only,) = spec["containers"]
        assert {"name": "data", "mountPath": "/data"} in only["volumeMounts"]
        assert "nmf-store" not in str(spec)
    for job in jobs:
        name, *rest = job["spec"]["template"]["spec"]["containers"][0]["args"]
        given = COMMANDS[name].make_context(name, rest).params
        assert (given["matrix"], given["output"]) == ("/data/V.zarr", "/data/run.zarr")


def test_each_night_may_have_a_run_of_its_own() -> None:
    plain, dated = (
        found["CronJob/nmf-nightly"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
        for found in (documents(), documents(*DATED))
    )
    assert dated["command"] == ["sh", "-c"]
    (script,) = dated["args"]
    shell = script.replace("$$(", "$(").replace(
        "$(DASK_SCHEDULER_ADDRESS)", "tcp://a:1"
    )  # as the kubelet does
    told = subprocess.run(
        ["sh", "-c", shell.replace("exec dask-nmf", "printf '%s\\n'")],
        capture_output=True,
        text=True,
        check=True,
    )
    args = told.stdout.splitlines()
    expected = [word.replace("$(DASK_SCHEDULER_ADDRESS)", "tcp://a:1") for word in plain["args"]]
    assert args == [word.replace("run.zarr", f"run-{date.today()}.zarr") for word in expected]
    assert {**dated, "command": None, "args": None} == {**plain, "command": None, "args": None}


def strict(schema: Any) -> Any:
    """A schema of a resource that refuses what the API server would drop without a word."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


@pytest.mark.real
def test_the_cluster_is_as_the_operator_wants_it(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path, OPERATOR],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    resource = yaml.safe_load(zipfile.ZipFile(wheel).read(CRD))["spec"]
    (version,) = [each for each in resource["versions"] if each["name"] == "v1" and each["served"]]
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
    check = jsonschema.Draft7Validator(schema)

    cluster = documents()["DaskCluster/nmf"]
    assert cluster["apiVersion"] == f"{resource['group']}/v1"
    check.validate(cluster)
    spoilt = copy.deepcopy(cluster)
    for mapping in mappings(spoilt["spec"]):
        for key in list(mapping):
            mapping[f"{key}x"] = mapping.pop(key)
            with pytest.raises(jsonschema.ValidationError):
                check.validate(spoilt)
            mapping[key] = mapping.pop(f"{key}x")
    assert spoilt == cluster


def test_commands_are_those_that_there_are() -> None:
    options = {name: parsed(pod) for name, pod in pods().items()}
    for name in ("fit", "nightly"):
        assert options[name]["scheduler"] == "$(DASK_SCHEDULER_ADDRESS)"
        assert options[name]["log_format"] == "json"
    assert words(pods()["nightly"])[:-2] == words(pods()["fit"])[:-1]  # but for --time-limit and the last
    assert options["worker"]["scheduler"] == "$(DASK_SCHEDULER_ADDRESS)"
    with pytest.raises(click.NoSuchOption):
        app.commands["fit"].make_context("fit", [*words(pods()["fit"])[1:], "--unknown"])


def test_exit_codes_are_acted_upon() -> None:
    for job in (documents()["Job/nmf-fit"], documents()["CronJob/nmf-nightly"]["spec"]["jobTemplate"]):
        spec = job["spec"]["template"]["spec"]
        assert spec["restartPolicy"] == "Never"  # or there is no policy of failures
        rules = job["spec"]["podFailurePolicy"]["rules"]
        by_code = {rule["action"]: rule["onExitCodes"] for rule in rules if "onExitCodes" in rule}
        assert {action: set(rule["values"]) for action, rule in by_code.items()} == {
            "FailJob": {ExitCode.USAGE, ExitCode.BAD_DATA},
            "Count": {ExitCode.IO_ERROR, ExitCode.TRY_AGAIN, ExitCode.TERMINATED},
        }
        assert {rule["containerName"] for rule in by_code.values()} == {"fit"}
        assert [each["name"] for each in spec["containers"]] == ["fit"]


def test_a_night_ends_in_order() -> None:
    nightly = documents()["CronJob/nmf-nightly"]["spec"]
    assert nightly["concurrencyPolicy"] == "Forbid"
    assert parsed(pods()["nightly"])["time_limit"] < nightly["jobTemplate"]["spec"]["activeDeadlineSeconds"]


def test_memory_is_what_the_container_has() -> None:
    worker = container(pods()["worker"])
    room = parse_bytes(worker["resources"]["limits"]["memory"])
    assert parse_bytes(parsed(pods()["worker"])["memory_limit"]) + NANNY <= room
    for pod in pods().values():
        resources = container(pod)["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]  # what is promised is there
    assert str(parsed(pods()["worker"])["nthreads"]) == worker["resources"]["requests"]["cpu"]


def test_pods_have_no_more_rights_than_the_namespace_allows() -> None:
    """What the profile "restricted" of the Pod Security Standards asks of a pod."""
    labels = documents()["Namespace/nmf"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for pod in pods().values():
        whole, own = pod["spec"]["securityContext"], container(pod)["securityContext"]
        assert whole["runAsNonRoot"] is True
        assert whole["runAsUser"] > 0
        assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["readOnlyRootFilesystem"] is True
        assert pod["spec"]["automountServiceAccountToken"] is False
        kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"configMap", "emptyDir", "secret"}


def test_names_lead_somewhere() -> None:
    page = (FOLDER / "README.md").read_text()
    secrets = set(re.findall(r"create secret generic (\S+)", page))
    for pod in pods().values():
        only = container(pod)
        assert only["image"] == "registry.example.org/dask-nmf:1"  # as the kustomization says
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert {mount["name"] for mount in only["volumeMounts"]} == set(volumes)
        for source in only["envFrom"]:
            assert source.get("configMapRef", {"name": "nmf-settings"})["name"] == "nmf-settings"
            assert source.get("secretRef", {"name": "nmf-store"})["name"] in secrets
        assert volumes["tls"]["secret"]["secretName"] in secrets
        ports = {port["name"]: port["containerPort"] for port in only.get("ports", [])}
        probes = [only[name] for name in ("readinessProbe", "livenessProbe") if name in only]
        asked = [
            probe[kind]["port"] for probe in probes for kind in ("httpGet", "tcpSocket") if kind in probe
        ]
        assert set(asked) <= set(ports)
    for name, options in (
        ("scheduler", {"comm": "port", "http": "dashboard_address"}),
        ("worker", {"worker": "worker_port", "nanny": "nanny_port", "http": "dashboard_address"}),
    ):
        ports = {port["name"]: port["containerPort"] for port in container(pods()[name])["ports"]}
        given = parsed(pods()[name])
        assert {port: int(given[option].strip(":")) for port, option in options.items()} == ports
        assert not given["dashboard"]


def test_only_our_own_pods_reach_a_port() -> None:
    ours = documents()["NetworkPolicy/nmf-only"]["spec"]
    label = ours["podSelector"]["matchLabels"]
    assert ours["ingress"] == [{"from": [{"podSelector": {"matchLabels": label}}]}]
    for pod in pods().values():
        assert label.items() <= pod["metadata"]["labels"].items()
    operator = documents()["NetworkPolicy/nmf-operator"]["spec"]["podSelector"]["matchLabels"]
    assert [
        name for name, pod in pods().items() if operator.items() <= pod["metadata"]["labels"].items()
    ] == ["scheduler"]
    service = documents()["DaskCluster/nmf"]["spec"]["scheduler"]["service"]
    assert service["type"] == "ClusterIP"
    assert service["selector"].items() <= pods()["scheduler"]["metadata"]["labels"].items()
    named = {port["name"]: port["containerPort"] for port in container(pods()["scheduler"])["ports"]}
    assert {port["port"]: named[port["targetPort"]] for port in service["ports"]} == {8786: 8786, 8787: 8787}


def test_settings_are_those_of_dask() -> None:
    with_tls = dict(
        re.findall(r"^  # (DASK_\w+): (.*)$", (FOLDER / "settings.yaml").read_text(), re.MULTILINE)
    )
    assert documents()["ConfigMap/nmf-settings"]["data"] == {
        "DASK_SCHEDULER_ADDRESS": "tcp://nmf-scheduler:8786"
    }
    assert with_tls.pop("DASK_SCHEDULER_ADDRESS") == "tls://nmf-scheduler:8786"
    for name in with_tls:
        dask.config.get(name.removeprefix("DASK_").lower().replace("__", "."))  # or KeyError
    files = {Path(value).name for value in with_tls.values() if value.startswith("/tls/")}
    assert files == set(re.findall(r"--from-file=(\S+)", (FOLDER / "README.md").read_text()))
