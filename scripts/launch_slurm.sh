#!/usr/bin/env bash
# Start a run, or take it up again, on GPU hosts under Slurm, one process for each GPU.
#
#     sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 scripts/launch_slurm.sh --config=configs/imagenet_s3.py \
#         --workdir=/shared/runs/imagenet [--config.field=value]
#
# Submit it from the project's folder, where .venv has the package with its cuda extra; the workdir must be a folder that
# all hosts see. Two minutes before its time is up the run saves and stops, and the job is queued again; a process that
# fails ends the job, and the same command goes on from the last checkpoint.
#SBATCH --job-name=s3_jax
#SBATCH --output=s3_jax-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail

if [ $# -lt 2 ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
export S3_JAX_DISTRIBUTED=1
srun --kill-on-bad-exit=1 .venv/bin/python -m s3_jax.main "$@" &
steps=$!
# The shell gets the signal, and hands it on: every process saves, and ends with 143.
trap 'scancel --signal=TERM "$SLURM_JOB_ID"; stopped=yes' TERM
status=0
wait "$steps" || status=$?
if [ -n "${stopped:-}" ]; then
    wait "$steps" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
