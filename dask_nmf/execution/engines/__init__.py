"""The engines, one file each: V in panels, in blocks of a grid, in strata of blocks, and in memory."""
