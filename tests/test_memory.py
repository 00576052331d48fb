"""Freed memory is kept where steps repeat, and given back before blocks of another size are needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
SCRIPT = """
import torch
from jsd.memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

before = resident()
print(keep_freed_memory())
torch.ones(50_000_000)
print(resident() - before > 150)
print(give_back_freed_memory())
print(resident() - before < 50)
"""


def test_a_large_block_is_kept_until_it_is_given_back():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 4
