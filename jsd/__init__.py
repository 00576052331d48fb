"""Japanese Stable Diffusion: a Japanese prompt in, a picture out.

The parts, each a module of one idea: `request` (what may be asked), `tokenizer`, `schedulers`, `weights` (a model
folder), `sampling` (the denoising loop), `engine` (many requests, one UNet), `safety`, `watermark`, `images`, `cli`.
Importing the package loads no model library.
"""

__version__ = "0.1.0"
