"""The 5 x 6 matrix of a tutorial on NMF, factorised with Lee & Seung's steps: our errors beside its own."""

from __future__ import annotations

import argparse

import dask
import numpy as np

from dask_nmf import nmf

V = np.array(
    [
        [0.2572934, 0.7850774, 0.1964726, 0.89460898, 0.5124385, 0.6538741],
        [0.4548971, 0.7619701, 0.4504754, 0.04016496, 0.1973834, 0.9347442],
        [0.8251736, 0.3744436, 0.5294228, 0.79247087, 0.5080712, 0.3198328],
        [0.9600582, 0.5075759, 0.1684872, 0.95316732, 0.4352644, 0.5006196],
        [0.3160396, 0.5518905, 0.2720268, 0.01742472, 0.1015410, 0.3987225],
    ]
)
RANK = 5
# ‖V − W H‖ of what the tutorial prints as W H.
PRINTED = {
    "multiplicative updates": 0.00567,
    "R package NMF, method lee": 0.00818,
    "stochastic gradient descent": 0.02183,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="of the tutorial's own setting")
    steps = parser.parse_args().steps
    dask.config.set(scheduler="synchronous")  # a matrix this small is not worth a thread
    ours = {
        "mu, 100 steps": nmf(V, RANK, solver="mu", max_iter=100, tol=0),
        f"mu as there: random start, delta = 0.001, {steps} steps": nmf(
            V, RANK, solver="mu", init="random", delta=0.001, max_iter=steps, tol=0, random_state=1
        ),
    }
    print("Frobenius error of V ≈ W H")
    for name, error in PRINTED.items():
        print(f"{error:12.8f}  the tutorial, {name}")
    for name, result in ours.items():
        print(f"{result.reconstruction_err:12.8f}  dask_nmf, {name}")


if __name__ == "__main__":
    main()
