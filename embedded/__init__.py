"""Evaluation: how good the pictures are. Its judge is trained on the drawings, so it needs the `eval` extra."""
