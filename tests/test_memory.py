"""Freed blocks are kept where steps repeat and given back before others are needed; a start is not collected."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
SCRIPT = """
import torch
from jsd.device import return_freed_memory, keep_freed_memory

def resident():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1]) // 1024

before = resident()
print(keep_freed_memory())
torch.ones(50_000_000)
print(resident() - before > 150)
print(return_freed_memory())
print(resident() - before < 50)
"""


def test_a_large_block_is_kept_until_it_is_given_back():
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 4


def test_the_collector_rests_for_a_start_and_forgets_what_was_made():
    script = """
import gc
from jsd.settings import without_collector
try:
    with without_collector():
        print(gc.isenabled())
        raise KeyError
except KeyError:
    print(gc.isenabled(), gc.get_freeze_count() == 0)
with without_collector():
    kept = [[] for _ in range(10000)]
print(gc.isenabled(), gc.get_freeze_count() > 10000)
gc.disable()
with without_collector():
    pass
print(gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True", "True", "True", "False"]
