"""The import name of 2022: `from japanese_stable_diffusion import JapaneseStableDiffusionPipeline` still works."""

from jsd.genuine.pipelines import (
    JapaneseStableDiffusionImg2ImgPipeline,
    JapaneseStableDiffusionInpaintPipeline,
    JapaneseStableDiffusionPipeline,
)

__all__ = [
    "JapaneseStableDiffusionImg2ImgPipeline",
    "JapaneseStableDiffusionInpaintPipeline",
    "JapaneseStableDiffusionPipeline",
]
