"""`--cluster ssh`, through a real sshd."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import zarr
from support.docs import ENVIRONMENT, ROOT, bash, blocks, commands
from support.servers import PATIENCE, free_port, listens, needs, process, until

from dask_nmf import nmf

PAGE = ROOT / "cluster_configs" / "ssh" / "README.md"
LOOPBACK = {"DASK_DASK_NMF__SSH__SCHEDULER_OPTIONS__HOST": "127.0.0.1"}  # beside what the page has

pytestmark = needs("sshd", "ssh-keygen", root=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the V that the page speaks of."""
    v = np.random.default_rng(0).random((300, 40))
    zarr.create_array(tmp_path / "V.zarr", data=v, chunks=(100, 40))
    (tmp_path / "cluster_configs").symlink_to(ROOT / "cluster_configs")
    return tmp_path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose owner may log in at localhost: a server, its key, and that of the user."""
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True)
    ssh.chmod(0o700)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ssh / key], check=True)
    (ssh / "authorized_keys").write_bytes((ssh / "user.pub").read_bytes())
    port = free_port()
    kind, key, *_ = (ssh / "host.pub").read_text().split()
    (ssh / "known_hosts").write_text(f"[localhost]:{port} {kind} {key}\n")
    (ssh / "config").write_text(
        f"Host localhost\n  HostName localhost\n  Port {port}\n  IdentityFile {ssh / 'user'}\n"
    )
    (ssh / "sshd_config").write_text(
        f"""
        ListenAddress 127.0.0.1:{port}
        HostKey {ssh / "host"}
        AuthorizedKeysFile {ssh / "authorized_keys"}
        PidFile none
        StrictModes no
        SetEnv PYTHONPATH={os.environ.get("PYTHONPATH", "")}
        """
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    with process("/usr/sbin/sshd", "-D", "-e", "-f", ssh / "sshd_config", log=tmp_path / "sshd.log"):
        until(lambda: listens(port))
        yield tmp_path / "home"


def run(lines: list[str], folder: Path, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Lines of a page."""
    environment = ENVIRONMENT | LOOPBACK | {"HOME": str(home)} | more
    return subprocess.run(
        bash(lines),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def left_behind() -> list[psutil.Process]:
    """Schedulers and workers that were started through SSH."""
    started = psutil.process_iter(["cmdline"])
    return [found for found in started if "distributed.cli.dask_spec" in (found.info["cmdline"] or [])]


def test_the_commands_of_the_page(folder: Path, home: Path) -> None:
    configure, fit = commands(blocks(PAGE, "console")[0])
    done = run([configure, f"{fit} --tol 0 --max-iter 3"], folder, home)
    assert done.returncode == 0, done.stderr
    assert "without TLS" not in done.stderr
    expected = nmf(folder / "V.zarr", 5, tol=0, max_iter=3)
    np.testing.assert_allclose(zarr.open_group(folder / "run.zarr")["H"][:], expected.H, rtol=1e-6)
    until(lambda: not left_behind())
    again = [configure, fit.replace("run.zarr", "x.zarr")]
    refused = {
        "a python that is not there": (
            {"DASK_DASK_NMF__SSH__REMOTE_PYTHON": "/no/python"},
            2,
            "did not start",
        ),
        "no key": ({"DASK_DASK_NMF__SSH__CONNECT_OPTIONS__CLIENT_KEYS": "[]"}, 2, "Permission denied"),
        "no server": ({"DASK_DASK_NMF__SSH__CONNECT_OPTIONS__PORT": "1"}, 75, "run this again"),
    }
    for more, code, word in refused.values():
        told = run(again, folder, home, **more)
        assert told.returncode == code, told.stderr
        assert "Traceback" not in told.stderr
        assert word in told.stderr.strip().splitlines()[-1]
