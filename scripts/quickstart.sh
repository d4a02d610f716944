#!/usr/bin/env bash
# The whole method on a fresh machine: makes .venv, installs, searches on the embedded digits. Arguments are passed on,
# e.g. scripts/quickstart.sh --config.seed=1
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

echo "Installing into .venv (a few minutes the first time) ..."
make_environment .venv "$(find_python)" .
python -m s3_jax.main --config=configs/digits.py --workdir="${WORKDIR:-runs/digits}" "$@"
