"""Train a model on your own captioned pictures: `python -m jsd train COMMAND`. Needs the package's extra `train`.

docs/training.md explains the commands in the order in which they are used.
"""
