#!/usr/bin/env bash
# The package as others get it: built, its metadata checked, installed into an empty folder and used from another one.
# The packages it needs are those of the active environment; `build` and `twine` are among its test extras.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# From a copy of the files that git knows, so that nothing is in the package only because it lies about here.
mkdir "$scratch/source" "$scratch/elsewhere"
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$scratch/source"
python -m build --outdir "$scratch/dist" "$scratch/source" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
twine check --strict "$scratch"/dist/*
python -m pip install --quiet --disable-pip-version-check --no-deps --target "$scratch/installed" "$scratch"/dist/*.whl

missing=$(comm -23 <(git ls-files s3_jax | sort) <(cd "$scratch/installed" && find s3_jax -type f | sort))
[ -z "$missing" ] || { echo "not in the wheel:" $missing >&2; exit 1; }

cd "$scratch/elsewhere"
export PYTHONPATH="$scratch/installed"
python - <<'END'
import importlib, importlib.metadata, os, pkgutil

import s3_jax

installed = os.environ["PYTHONPATH"]
assert s3_jax.__file__.startswith(installed), s3_jax.__file__
assert importlib.metadata.version("s3_jax") == s3_jax.__version__
modules = [module.name for module in pkgutil.walk_packages(s3_jax.__path__, "s3_jax.")]
assert len(modules) > 50, modules
for name in modules:
    importlib.import_module(name)
print(f"s3_jax {s3_jax.__version__}: {len(modules)} modules of the installed wheel can be imported")
END
python "$here/scripts/models.py" >/dev/null
