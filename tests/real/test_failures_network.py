"""Networks that are cut under a fit: scheduler, workers and client in network namespaces of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from support.fits import DASK, Fit, begin, ends_well, make_v, refused, same_factors, wait_for
from support.servers import needs, process, until

pytestmark = needs("ip", root=True)
PASSES = 40
QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "8s"}
WAIT = {"DASK_DASK_NMF__WAIT": "15"}
NAMES = ("scheduler", "one", "two", "client")
NOBODY = "02:00:00:00:00:99"  # a hardware address that no frame reaches
PORT = 8786


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """A bridge, with namespaces on it: 10.77.0.1 is the scheduler, then the workers, then the client."""

    def __init__(self) -> None:
        tag = f"n{uuid4().hex[:5]}"
        self.bridge = f"{tag}br"
        self.spaces = {name: f"{tag}{name}" for name in NAMES}
        self.ends = {name: f"{tag}v{number}" for number, name in enumerate(NAMES)}
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(NAMES, 1)}

    def up(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for name, space in self.spaces.items():
            ip("netns", "add", space)
            ip("link", "add", self.ends[name], "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", self.ends[name], "master", self.bridge, "up")
            ip("-n", space, "addr", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                ip("-n", space, "link", "set", link, "up")

    def down(self) -> None:
        for space in self.spaces.values():
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)
        for link in (*self.ends.values(), self.bridge):
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)

    def inside(self, name: str) -> tuple[str, ...]:
        """How a command is run in a namespace."""
        return ("ip", "netns", "exec", self.spaces[name])

    def cut(self, name: str) -> None:
        """Take one off the network."""
        ip("link", "set", self.ends[name], "down")

    def mend(self, name: str) -> None:
        ip("link", "set", self.ends[name], "up")

    def part(self, one: str, other: str) -> None:
        """What these two send each other is lost on the way."""
        for here, there in ((one, other), (other, one)):
            to = (self.addresses[there], "dev", "eth0", "lladdr", NOBODY, "nud", "permanent")
            ip("-n", self.spaces[here], "neigh", "replace", *to)

    def rejoin(self, one: str, other: str) -> None:
        for here, there in ((one, other), (other, one)):
            ip("-n", self.spaces[here], "neigh", "del", self.addresses[there], "dev", "eth0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a small V, and what a fit makes of it that nobody disturbs."""
    folder = tmp_path_factory.mktemp("network")
    make_v(folder / "v.zarr", 4000)
    ends_well(begin(folder, "whole.zarr", "hals", PASSES))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def network(folder: Path) -> Iterator[Network]:
    """A network with a scheduler and two workers."""
    network = Network()
    environment = os.environ | QUICK
    with ExitStack() as stack:
        stack.callback(network.down)
        network.up()
        at = f"tcp://{network.addresses['scheduler']}:{PORT}"
        worker = ("worker", at, "--nthreads", "1", "--memory-limit", "1GiB", "--no-nanny")
        for name, words in (
            ("scheduler", ("scheduler", "--host", network.addresses["scheduler"], "--port", str(PORT))),
            ("one", (*worker, "--host", network.addresses["one"])),
            ("two", (*worker, "--host", network.addresses["two"])),
        ):
            command = (*network.inside(name), *DASK, *words, "--no-dashboard")
            stack.enter_context(process(*command, log=folder / f"{name}.log", cwd=folder, env=environment))
        until(lambda: all("Registered to" in (folder / f"{name}.log").read_text() for name in ("one", "two")))
        yield network


def fit(folder: Path, network: Network, output: str) -> Fit:
    """A fit that is not at its last pass before a test asks for its end."""
    asked = ("hals", PASSES, "--scheduler", f"tcp://{network.addresses['scheduler']}:{PORT}")
    return begin(
        folder, output, *asked, before=network.inside("client"), held=f"pass {PASSES - 1}", **QUICK, **WAIT
    )


def test_the_client_is_cut_off_for_a_moment_and_then_for_good(folder: Path, network: Network) -> None:
    cut = fit(folder, network, "cut.zarr")
    wait_for(cut, "pass", 2)
    network.cut("client")
    time.sleep(2)
    network.mend("client")
    done = cut.count("pass")
    wait_for(cut, "pass", min(done + 2, PASSES - 1))
    network.cut("client")
    refused(cut, 75, "the scheduler", "lost", "run this again")
    network.mend("client")
    ends_well(fit(folder, network, "cut.zarr"))
    same_factors(folder / "cut.zarr", folder / "whole.zarr")


def test_a_worker_is_cut_off(folder: Path, network: Network) -> None:
    cut = fit(folder, network, "off.zarr")
    wait_for(cut, "pass", 2)
    network.cut("two")
    ends_well(cut)
    same_factors(folder / "off.zarr", folder / "whole.zarr")


def test_workers_are_cut_off_from_each_other(folder: Path, network: Network) -> None:
    cut = fit(folder, network, "parted.zarr")
    wait_for(cut, "pass", 2)
    network.part("one", "two")
    time.sleep(20)
    network.rejoin("one", "two")
    ends_well(cut)
    same_factors(folder / "parted.zarr", folder / "whole.zarr")
