"""The page's process from its first moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.server import ROOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_model_is_loaded_ends_the_page_without_a_traceback(tmp_path, number):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "demo"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)  # it imports libraries now
    process.send_signal(number)
    assert "Traceback" not in process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []
