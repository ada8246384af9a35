#!/bin/bash
# Submits the fit of this night; for cron on a node that submits jobs, or scrontab: see README.md.
# Two at a time do no harm, and with --dependency=singleton the second waits for the first.
set -euo pipefail
folder=$(dirname "$(readlink -f "$0")")
cd "${NMF_FOLDER:-/shared/nmf}" # CHANGE: the folder of V and of the runs

# CHANGE: V, the rank. Where V is another every night, the run has the date: --output "run-$(date +%F).zarr"
sbatch --job-name=nmf-nightly --dependency=singleton "$folder/job.sbatch" \
    fit V.zarr --rank 20 --output run.zarr --log-format json
