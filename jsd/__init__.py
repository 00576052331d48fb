"""Japanese Stable Diffusion: a Japanese prompt in, a picture out.

    from jsd import model, sampling
    from jsd.request import Request

    components = model.load("weights/embedded")
    sampling.generate(components, Request("猫の肖像画 油絵", seed=1)).images[0].save("out.png")

The README ("Where things are") names the main modules. `import jsd` alone imports neither torch nor diffusers.
"""

from importlib import import_module

from jsd.version import __version__ as __version__


def __getattr__(name: str) -> object:
    """Import and return what an old name stands for: `jsd.model` for `weights`, a pipeline class for `Japanese...`."""
    if name == "weights":
        return import_module("jsd.model")
    if name.startswith("Japanese"):
        return getattr(import_module("jsd.genuine.pipelines"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
