"""Freed memory stays with a process that trains."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from jsd.train.memory import keep_freed_memory

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

before = resident()
torch.ones(50_000_000)
print(resident() - before < 50)
print(keep_freed_memory())
torch.ones(50_000_000)
print(resident() - before > 150)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="this needs glibc")
def test_a_large_block_that_is_freed_is_kept():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 3
