"""Every test in this folder has an accelerator of its own."""

from tests.train.conftest import fresh_accelerator

__all__ = ["fresh_accelerator"]
