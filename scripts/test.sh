#!/usr/bin/env bash
# Every check, on a machine where nothing was installed by hand: makes .venv, installs with test extras, then format,
# lint, types, the package and tests. PYTHON chooses the interpreter (3.11 or newer), VENV the environment's folder.
# A second Python (3.12, if there is one) installs the package and runs the tests as well, those of the method, models,
# data and training: not again those that start commands, damage, kill or resume whole runs, nor those of reports.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

make_environment "${VENV:-.venv}" "$(find_python)" ".[test]"

second=$(find_second_python)
if [ -n "$second" ]; then
    (make_environment "${VENV:-.venv}-second" "$second" ".[test]") & # while the first is at work
    installing=$!
fi
ruff format --check .
ruff check .
mypy
scripts/check_package.sh
pytest -n 2 --dist=loadgroup

if [ -n "$second" ]; then
    wait "$installing"
    # shellcheck disable=SC1091
    source "${VENV:-.venv}-second/bin/activate"
    pytest -n 2 --ignore=tests/test_pipeline.py --ignore=tests/test_devices.py --ignore=tests/test_commands.py \
        --ignore=tests/test_buckets.py --ignore=tests/test_notebook.py --ignore-glob="tests/test_report_*" \
        --ignore-glob="tests/test_bad_*"
fi
