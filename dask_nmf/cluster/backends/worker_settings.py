"""Settings of Dask that all workers need which this package starts."""

from __future__ import annotations

GIB = str(2**30)
# Dask's nanny makes malloc return every large temporary to the system, whose pages are then faulted in anew:
# reads of Zarr take twice as long. These variables take effect before a worker starts, so they are set only
# in clusters that this package starts. One arena: Zarr decodes in threads of its own, and each would keep
# what its arena once held (measured: up to 100 MB of resident memory above the plan).
MALLOC = {"MALLOC_MMAP_THRESHOLD_": GIB, "MALLOC_TRIM_THRESHOLD_": GIB, "MALLOC_ARENA_MAX": "1"}
PRE_SPAWN = "distributed.nanny.pre-spawn-environ"
# Variables that nannies of any version set in their process besides those.
OF_NANNIES = ("PYTHONHASHSEED", "DASK_PARENT", "__DASK_PARENT_PID")
# Workers neither spill nor pause. The plan keeps them under their limit, and because malloc does not return
# memory, a worker that has paused once would never go on. The nanny still ends a worker at 95 %.
TUNED: dict[str, object] = {
    **{f"distributed.worker.memory.{name}": False for name in ("target", "spill", "pause")},
    **{f"{PRE_SPAWN}.{name}": size for name, size in MALLOC.items()},
}
