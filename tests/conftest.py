import importlib.metadata
import os
import sys
from pathlib import Path

# Tests run on the CPU, whatever else the machine has.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Nearly all their time goes into compiling: half of it where XLA does not optimise. The laws hold either way.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# And half of that with the older code generator, which later versions do not have.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}"

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

# These files take minutes: begun first, so that no process of pytest-xdist waits for the other in the end.
_LONG = [
    f"test_{name}.py"
    for name in (
        *("pipeline", "models_laws", "devices", "study_run", "notebook", "task", "report_page", "segmentation_search"),
        *("segmentation_export", "bad_runs", "standalone", "buckets", "readme", "report_browser", "segmentation_ahead"),
    )
]


def pytest_collection_modifyitems(items: list) -> None:
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))
