#!/usr/bin/env bash
# Start a run, or take it up again, on all workers of a Cloud TPU VM slice.
#
#     scripts/launch_tpu_vm.sh NAME ZONE --config=configs/imagenet_s3.py --workdir=gs://BUCKET/imagenet [--config.field=value]
#
# NAME and ZONE: of the slice, as gcloud lists them. Every worker clones the project's own origin at this commit, installs
# it with its extras tpu and gcs and runs the same command; JAX finds the other workers by itself. The first one prints;
# the log of each is run.log in its folder s3_jax. The workdir is in a bucket that the slice's account may write to, or a
# folder that all workers see, as of Filestore. Where a worker fails, the others end within a minute: start this again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ $# -lt 3 ]; then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
name=$1 zone=$2
shift 2
origin=$(git remote get-url origin)
revision=$(git rev-parse HEAD)
arguments=$(printf ' %q' "$@")

gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
    set -eo pipefail
    [ -d s3_jax ] || git clone -q $(printf '%q' "$origin") s3_jax
    cd s3_jax
    git fetch -q && git checkout -q $revision
    [ -d .venv ] || python3 -m venv .venv
    .venv/bin/pip install -q -e '.[tpu,gcs]'
    S3_JAX_DISTRIBUTED=1 .venv/bin/python -m s3_jax.main$arguments 2>&1 | tee -a run.log
"
