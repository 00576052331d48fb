"""Training for anybody's captioned pictures: `python -m jsd train COMMAND`. Needs the `train` extra.

docs/training.md explains the commands in the order in which they are used.
"""
