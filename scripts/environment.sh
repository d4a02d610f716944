# Shell functions that the scripts share; to be sourced.

# Print the interpreter to use: $PYTHON, else the first of 3.11 or newer that is found.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "Python 3.11 or newer is needed; install it, or name it with PYTHON=/path/to/python" >&2
    return 1
}

# Print a Python 3.12 other than the first choice, if the machine has one; nothing where it has none.
find_second_python() {
    local candidate version='import sys; sys.exit(sys.version_info[:2] != (3, 12))'
    "$(find_python)" -c "$version" 2>/dev/null && return
    for candidate in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
        if "$candidate" -c "$version" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# make_environment FOLDER PYTHON REQUIREMENT: make a virtual environment where it is missing, install, activate. Modules are
# compiled when they are imported: most never are.
make_environment() {
    [ -x "$1/bin/python" ] || "$2" -m venv "$1"
    # shellcheck disable=SC1091
    source "$1/bin/activate"
    python -m pip install --quiet --disable-pip-version-check --no-compile --editable "$3"
}
