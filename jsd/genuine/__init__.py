"""The weights and the Python API of rinna/japanese-stable-diffusion (2022), with today's libraries.

`hub` downloads the repository, `convert` turns it into a model folder of today (`tensors` and `configs` read the old
files, `folder` writes the new ones), and `pipelines` has the pipeline classes of 2022
(`loading` opens what they draw with, and `unverified` folders of others; `tokenizer` is what they tokenize with,
`saving` writes them).
"""
