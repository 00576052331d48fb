"""Benchmarks, run by script/bench-*: ratios against peers, measured in turn in one run. They are not tests."""
