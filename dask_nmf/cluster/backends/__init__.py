"""The clusters that a command can run on, one file each: local, SSH, SLURM, or one that runs already."""
