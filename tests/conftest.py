import atexit
import html
import importlib.metadata
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

# Tests run on the CPU, whatever else the machine has.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nearly all their time goes into compiling: half of it where XLA does not optimise. The laws hold either way.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# And half of that with the older code generator, which later versions do not have.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

# The tests' processes and all that they start share compiled programs, the small ones too, of which there are hundreds:
# many start the same run, or compute on the same shapes. Nobody's own cache has a part in it; it is gone afterwards.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="s3_jax_compiled_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

# These files take minutes: begun first, so that no process of pytest-xdist waits for the other in the end.
_LONG = [
    f"test_{name}.py"
    for name in (
        *("pipeline", "models_laws", "devices", "study_run", "detection_search", "notebook", "task", "report_page"),
        *("vqa_task", "segmentation_search", "detection_cascade", "segmentation_export", "bad_runs", "standalone"),
        *("buckets", "readme", "report_browser", "segmentation_ahead", "detection_reference", "vqa_network"),
    )
]


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of reports are empty, for tests of what else a page has: drawing them takes longer than all the rest."""
    from s3_jax.report import theme  # after what is set above

    monkeypatch.setattr(theme, "png", lambda figure: b"")
    monkeypatch.setattr(theme, "svg", _empty_svg)


def _empty_svg(figure: object, name: str, description: str) -> str:
    return f'<svg role="img" aria-label="{html.escape(description)}" viewBox="0 0 1 1"></svg>'
