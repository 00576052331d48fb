"""How the model in `weights/embedded` is made (`recipe`) and judged (`evaluate`). See docs/embedded.md.

Training needs the `train` extra of script/bootstrap. The evaluation trains a judge, so it needs the `eval` extra.
"""
