"""Draw a file of prompts on one machine or many: `python -m jsd bulk PROMPTS --to FOLDER` (docs/bulk.md).

`prompts` reads the file, `rows` checks each row, `drawing` draws rows with a model, `ray_pool` spreads that over
machines with Ray Data, `loop` takes what comes back to the folder that `output` writes. Only `ray_pool` imports ray,
which comes with the `bulk` extra of script/bootstrap.
"""
