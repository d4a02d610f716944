"""A program's temporary arrays use the memory that those of the last call have freed."""

import ctypes
import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
import jax, jax.numpy as jnp
from s3_jax.training.devices import keep_freed_memory

if "keep" in sys.argv:
    keep_freed_memory()

@jax.jit
def run(x):
    return ((x @ x.T) @ x).sum()  # x @ x.T is 64 MiB

pages, x = [], jnp.ones((4096, 8))
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    run(x).block_until_ready()
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps(pages))
"""


def fresh_pages(*arguments: str) -> list[int]:
    """How many pages the system handed out in each of eight calls of a program, in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_a_call_uses_the_memory_that_the_last_one_freed() -> None:
    """Without the setting every call is handed the pages of its temporary arrays anew: 16,384 for 64 MiB."""
    assert min(fresh_pages()[1:]) > 10_000
    assert max(fresh_pages("keep")[4:]) < 1_000  # the heap finds its size in the first calls
