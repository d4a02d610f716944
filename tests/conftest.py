import os

# Tests run on the CPU, whatever else the machine has, and share compiled programs between their processes.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
