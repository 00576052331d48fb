"""Evaluation: how good the pictures are. Needs the `train` extra: its references are the drawings, its judge is trained."""
