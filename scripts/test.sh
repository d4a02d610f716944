#!/usr/bin/env bash
# Every check, on a machine where nothing was installed by hand: makes .venv, installs with test extras, then format,
# lint, types, the package and tests. PYTHON chooses the interpreter (3.11 or newer), VENV the environment's folder.
# A second Python (3.12, if there is one) installs the package and runs the tests of models, of an update, of weights and
# of networks by themselves: what differs between versions of Python and JAX is met there first.
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
# A file's tests in one process, so that they share its fixtures and what JAX has compiled for them, and files in the order
# of tests/conftest.py. Not by groups: pytest 9.2 ignores those of pytest-xdist 3.8, and says nothing
# (https://github.com/pytest-dev/pytest-xdist/issues/1386).
by_files=(-n 2 --dist=loadfile --no-loadscope-reorder)
pytest "${by_files[@]}"

if [ -n "$second" ]; then
    wait "$installing"
    # shellcheck disable=SC1091
    source "${VENV:-.venv}-second/bin/activate"
    pytest "${by_files[@]}" tests/test_{models_laws,standalone}.py tests/test_weights*.py tests/test_data_{dataset,tfds}.py \
        tests/test_training_{steps,state,executed,checkpoints}.py
fi
