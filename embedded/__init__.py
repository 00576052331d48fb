"""Train a small Stable Diffusion for Japanese from nothing (`recipe`), and score a model's pictures (`evaluate`).

An earlier form of this code made `weights/embedded` (see docs/embedded.md). Training needs the `train` extra of
script/bootstrap. The evaluation trains a classifier, the judge, so it needs the `eval` extra.
"""
