"""The image of the manifests, built by buildah on a base of Debian's Python, as no registry is asked.

``python -m support.image FOLDER`` builds it ahead of the tests, which find it by DASK_NMF_IMAGE=FOLDER. It
needs no library, so that CI builds it while the environment is installed.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "cluster_configs/kubernetes/Dockerfile"
NAME = "localhost/dask-nmf"
# As the registry's image has it: Python, a pip that may install for all, certificates of authorities.
DEBIAN = ["--variant=extract", "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr"]
DEBIAN += ["--include=coreutils,dash,libstdc++6,python3,python3-pip,util-linux"]
DEBIAN += ['--extract-hook=rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED']
DEBIAN += ['--extract-hook=ln -s python3 "$1"/usr/bin/python && ln -sf dash "$1"/usr/bin/sh']
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
DEBIAN += [f'--extract-hook=install -D --mode=644 {CERTIFICATES} "$1"{CERTIFICATES}']
BASE = "FROM scratch\nADD base.tar /\nENV NUMBA_OPT=1\n"  # functions compile in 3/4 of the processor time
PIP = Path("/etc/pip.conf")  # how pip of this machine reaches the packages


def run(*command: object, **more: Any) -> str:
    """Return what a command prints."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout


def buildah(folder: Path) -> list[object]:
    """Return the words before a command of buildah that keeps all in a folder."""
    return ["buildah", "--root", folder / "store", "--runroot", folder / "run", "--storage-driver", "vfs"]


def build(folder: Path) -> None:
    """Build the Dockerfile into a folder that exists, which takes minutes on busy cores."""
    command = [*buildah(folder), "build", "--quiet", "--isolation", "chroot", "--network", "host"]
    command += [f"--volume={PIP}:{PIP}:ro"] if PIP.exists() else []
    run("mmdebstrap", "--quiet", *DEBIAN, "bookworm", folder / "base.tar")
    (folder / "Base").write_text(BASE)
    run(*command, "--file", folder / "Base", "--tag", "localhost/python", folder)
    base = ["--build-arg", "PYTHON=localhost/python", "--file", DOCKERFILE]
    run(*command, *base, "--tag", NAME, ROOT)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
