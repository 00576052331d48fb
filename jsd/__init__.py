"""Japanese Stable Diffusion: a Japanese prompt in, a picture out.

    from jsd import model, sampling
    from jsd.request import Request

    components = model.load("weights/embedded")
    sampling.generate(components, Request("猫の肖像画 油絵", seed=1)).images[0].save("out.png")

The README ("Where things are") names the modules. Importing this package imports no model library.
"""

from importlib import import_module

from jsd.version import __version__

__all__ = [
    "JapaneseStableDiffusionImg2ImgPipeline",
    "JapaneseStableDiffusionInpaintPipeline",
    "JapaneseStableDiffusionPipeline",
    "__version__",
    "weights",
]


def __getattr__(name: str) -> object:
    """The pipelines of 2022, and `weights`, the former name of `jsd.model`. Both import torch, so they wait for use."""
    if name == "weights":
        return import_module("jsd.model")
    if name in __all__:
        return getattr(import_module("jsd.genuine.pipelines"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
