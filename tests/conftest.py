import os
import sys
from pathlib import Path

# Tests run on the CPU, whatever else the machine has, and share compiled programs between their processes.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
