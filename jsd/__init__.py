"""Japanese Stable Diffusion: a Japanese prompt in, a picture out.

The parts, each a module of one idea: `request` (what may be asked), `tokenizer`, `schedulers`, `weights` (a model
folder), `sampling` (the denoising loop), `engine` (many requests, one UNet), `safety`, `watermark`, `images`, `cli`;
`hub` and `convert` (the weights of 2022), `pipelines` (its Python API). Importing the package loads no model library.
"""

__version__ = "0.1.0"
PIPELINES = (
    "JapaneseStableDiffusionPipeline",
    "JapaneseStableDiffusionImg2ImgPipeline",
    "JapaneseStableDiffusionInpaintPipeline",
)


def __getattr__(name: str) -> object:
    if name in PIPELINES:
        from jsd import pipelines

        return getattr(pipelines, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
