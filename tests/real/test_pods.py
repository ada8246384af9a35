"""What the manifests start, started: the image is built, and its containers run as the pods say.

In the place of Kubernetes: bubblewrap, with a file system that is read-only and without the rights of root;
one network namespace for all.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support.image import NAME, ROOT, build, buildah, run
from support.manifests import FOLDER, NANNY, container, documents, pods
from support.matrices import low_rank
from support.servers import needs, process, until

LONG = 900  # seconds, in which processes of pods compile what they call, on busy cores
pytestmark = [
    pytest.mark.timeout(4 * LONG),  # with the building of the image, which takes minutes on busy cores
    needs("buildah", "bwrap", "ip", "mmdebstrap", "openssl", root=True),
]
NETWORK = f"nmf-{os.getpid()}"
RANK = 20  # of the manifests


@dataclass(frozen=True)
class Image:
    """Its files, and what a container of it is by default."""

    root: Path
    environment: dict[str, str]
    entrypoint: list[str]
    user: str
    folder: str
    scratch: Path  # of its pods; kept, as each would compile anew


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The Dockerfile, built here unless CI has built it."""
    folder = tmp_path_factory.mktemp("image")
    built = Path(os.environ.get("DASK_NMF_IMAGE", folder))
    try:
        if built == folder:
            build(folder)
        told = json.loads(run(*buildah(built), "inspect", "--type=image", NAME))["OCIv1"]["config"]
        pod = run(*buildah(built), "from", NAME).strip()
        root = Path(run(*buildah(built), "mount", pod).strip())
        (root / "tls").mkdir()
        (folder / "scratch").mkdir()
        environment = dict(each.split("=", 1) for each in told["Env"])
        yield Image(
            root, environment, told["Entrypoint"], told["User"], told["WorkingDir"], folder / "scratch"
        )
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def network() -> Iterator[list[str]]:
    """The words before a command that runs in a network of its own."""
    run("ip", "netns", "add", NETWORK)
    try:
        run("ip", "-n", NETWORK, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", NETWORK]
    finally:
        run("ip", "netns", "delete", NETWORK)


def settings(tls: bool) -> dict[str, str]:
    """Those of the ConfigMap, or with what is a comment there."""
    if not tls:
        return dict(documents()["ConfigMap/nmf-settings"]["data"])
    lines = re.findall(r"^  # (DASK_\w+): (.*)$", (FOLDER / "settings.yaml").read_text(), re.MULTILINE)
    return {name: value.strip('"') for name, value in lines}


def expanded(text: str, environment: dict[str, str]) -> str:
    """$(NAME) in a command, as Kubernetes has it."""
    return re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], text)


def contained(image: Image, name: str, folder: Path, environment: dict[str, str]) -> list[str]:
    """The command of a pod's container, in a box that gives it what the pod says and no more."""
    pod = pods()[name]
    only, spec = container(pod), pod["spec"]
    given = image.environment | environment | {"DASK_WORKER_NAME": "nmf-default-worker-1"}
    user, group = str(spec["securityContext"]["runAsUser"]), spec["securityContext"]["fsGroup"]
    assert image.user.split(":")[0] == user
    box = ["bwrap", "--ro-bind", str(image.root), "/", "--proc", "/proc", "--dev", "/dev"]
    box += ["--perms", "1777", "--tmpfs", "/dev/shm", "--ro-bind", str(folder / "hosts"), "/etc/hosts"]
    box += ["--unshare-pid", "--as-pid-1", "--die-with-parent"]
    box += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # which setpriv drops
    box += ["--chdir", image.folder, "--clearenv"]
    for variable, value in given.items():
        box += ["--setenv", variable, value]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in only["volumeMounts"]:
        secret = volumes[mount["name"]].get("secret")
        place = folder / secret["secretName"] if secret else image.scratch / name
        place.mkdir(exist_ok=True)
        os.chown(place, 0, group)
        place.chmod(0o2775)
        for file in place.iterdir() if secret else ():
            os.chown(file, 0, group)
            file.chmod(secret["defaultMode"])
        box += ["--ro-bind" if mount.get("readOnly") else "--bind", str(place), mount["mountPath"]]
    words = only.get("command", image.entrypoint) + only.get("args", [])
    box += ["--", "setpriv", "--reuid", user, "--regid", user, "--groups", str(group)]
    return [*box, *(expanded(str(word), given) for word in words)]


def succeeds(command: list[str], **more: Any) -> bool:
    """Whether a command does; quietly."""
    return not subprocess.run(command, stderr=subprocess.DEVNULL, check=False, **more).returncode


def answers(network: list[str], name: str) -> Callable[[], bool]:
    """Whether the probes of a pod succeed."""
    only = container(pods()[name])
    ports = {port["name"]: port["containerPort"] for port in only["ports"]}
    lines = ["import socket, urllib.request as r"]
    for probe in (only["readinessProbe"], only["livenessProbe"]):
        if "httpGet" in probe:
            get = probe["httpGet"]
            lines.append(f"r.urlopen('http://127.0.0.1:{ports[get['port']]}{get['path']}', timeout=5)")
        else:
            lines.append(f"socket.create_connection(('127.0.0.1', {ports[probe['tcpSocket']['port']]}))")
    probing = [*network, sys.executable, "-c", "\n".join(lines)]
    return lambda: succeeds(probing)


FILL = """
import sys, urllib.request, zarr, numpy as np
from obstore.store import from_url
urllib.request.urlopen(urllib.request.Request(f"{sys.argv[1]}/bucket", method="PUT"))
store = zarr.storage.ObjectStore(from_url("s3://bucket/V.zarr", client_options={"allow_http": True}))
zarr.create_array(store, data=np.load("V.npy"), chunks=(500, 300), overwrite=True)
"""
FETCH = """
import zarr, numpy as np
from obstore.store import from_url
store = zarr.storage.ObjectStore(from_url("s3://bucket/run.zarr", client_options={"allow_http": True}))
run = zarr.open_group(store, mode="r")
np.savez("run.npz", W=run["W"][:], H=run["H"][:])
"""
SECRET = {  # of the object store, as `store.env` has it
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
    "AWS_ALLOW_HTTP": "true",
}


@contextmanager
def object_store(network: list[str], folder: Path) -> Iterator[None]:
    """An S3 server with V in the bucket that the manifests name."""
    np.save(folder / "V.npy", low_rank(4000, 300, RANK, dtype=np.float32))
    with process(*network, "moto_server", "-H", "127.0.0.1", "-p", "9000", log=folder / "s3.log"):
        fill = [*network, sys.executable, "-c", FILL, SECRET["AWS_ENDPOINT_URL"]]
        until(lambda: succeeds(fill, cwd=folder, env=os.environ | SECRET))
        yield


def passes(log: Path) -> list[int]:
    """Those that a fit tells of."""
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    lines = [json.loads(line) for line in whole if line.startswith("{")]
    return [line["pass"] for line in lines if line["event"] == "pass"]


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_a_job_whose_pod_is_evicted_is_finished_by_the_next(
    image: Image, network: list[str], tmp_path: Path, tls: bool
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "hosts").write_text("127.0.0.1 localhost nmf-scheduler\n")
    if tls:
        run("sh", ROOT / "cluster_configs/scheduler/certificates.sh", tmp_path, "nmf-scheduler")
        for secret, who in (("nmf-tls", "node"), ("nmf-tls-client", "client")):
            (tmp_path / secret).mkdir()
            for file in ("ca.pem", f"{who}.pem", f"{who}-key.pem"):
                shutil.copy(tmp_path / file, tmp_path / secret)
    given = settings(tls)
    fit = [*contained(image, "fit", tmp_path, given | SECRET), "--tol=0", "--max-iter=40"]

    with ExitStack() as stack:
        stack.enter_context(object_store(network, tmp_path))
        for name, environment in (("scheduler", given), ("worker", given | SECRET)):
            command = [*network, *contained(image, name, tmp_path, environment)]
            started = stack.enter_context(process(*command, log=tmp_path / f"{name}.log"))
            until(answers(network, name))
        nanny = psutil.Process(started.pid).children()[0]
        assert nanny.memory_info().rss < NANNY

        with process(*network, *fit, log=tmp_path / "first.log") as first:
            until(lambda: len(passes(tmp_path / "first.log")) > 1, LONG)
            psutil.Process(first.pid).children()[0].terminate()
            assert first.wait(LONG) == 143
        with process(*network, *fit, log=tmp_path / "second.log") as second:
            assert second.wait(LONG) == 0, (tmp_path / "second.log").read_text()
        run(*network, sys.executable, "-c", FETCH, cwd=tmp_path, env=os.environ | SECRET)

    first, second = (passes(tmp_path / f"{name}.log") for name in ("first", "second"))
    assert second == list(range(second[0], 41))
    assert second[0] - first[-1] in (1, 2)  # none is done twice; one may be committed and not told of
    v, result = np.load(tmp_path / "V.npy"), np.load(tmp_path / "run.npz")
    error = np.linalg.norm(v - result["W"] @ result["H"]) / np.linalg.norm(v)
    best = np.linalg.norm(np.linalg.svd(v, compute_uv=False)[RANK:]) / np.linalg.norm(v)
    assert min(result["W"].min(), result["H"].min()) >= 0
    assert best <= error < 1.1 * best
