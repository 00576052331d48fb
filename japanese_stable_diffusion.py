"""The package name of 2022, so that `from japanese_stable_diffusion import JapaneseStableDiffusionPipeline` works."""

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
