"""The weights and the Python API of 2022, of rinna/japanese-stable-diffusion, with today's libraries.

`hub` fetches a repository, `convert` turns it into a model folder of today (`tensors` and `configs` read the old files,
`folder` writes the new ones), and `pipelines` has the classes of 2022.
"""
