"""The peer of `script/bench`: a plain synchronous Cog predictor around stock diffusers. No batching.

Cog calls a synchronous `predict` from a thread that changes. Here one thread draws everything, because on a CPU each
thread that draws gets OpenMP threads of its own, and the more there are the slower they all are: a picture of the
embedded model takes half as long again (two cores).
"""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as LocalPath

import torch
from cog import BasePredictor, Input, Path
from diffusers import DDIMScheduler, LMSDiscreteScheduler, StableDiffusionPipeline

from jsd.cpu import faster_type
from jsd.manifest import read_json

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_pipeline(folder: str | LocalPath) -> StableDiffusionPipeline:
    """Load a model folder into stock diffusers, on the device and in the type that ours takes from JSD_DEVICE and
    JSD_DTYPE: by default a GPU in fp16, or else the CPU in the type that is faster for this model.
    """
    device = torch.device(os.environ.get("JSD_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
    name = os.environ.get("JSD_DTYPE") or "fp16"
    if device.type == "cpu" and not os.environ.get("JSD_DTYPE"):
        name, _ = faster_type(read_json(LocalPath(folder) / "unet" / "config.json"))
    return StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=DTYPES[name]).to(device)


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Load the model folder that the environment variable JSD_WEIGHTS names."""
        self.thread = ThreadPoolExecutor(1)
        self.pipeline = self.thread.submit(load_pipeline, os.environ["JSD_WEIGHTS"]).result()
        self.pipeline.set_progress_bar_config(disable=True)
        config = self.pipeline.scheduler.config
        self.samplers = {"DDIM": DDIMScheduler.from_config(config), "K_LMS": LMSDiscreteScheduler.from_config(config)}
        self.folder = LocalPath(tempfile.mkdtemp(prefix="peer-"))

    def predict(
        self,
        prompt: str = Input(description="What the picture shows."),
        num_inference_steps: int = Input(default=50, ge=1, le=500),
        guidance_scale: float = Input(default=7.5, ge=1, le=20),
        scheduler: str = Input(default="K_LMS", choices=["DDIM", "K_LMS"]),
        seed: int = Input(default=0, ge=0),
    ) -> Path:
        """Draw one picture of the prompt. Returns its PNG file."""
        self.pipeline.scheduler = self.samplers[scheduler]
        settings = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        settings["generator"] = torch.Generator().manual_seed(seed)
        image = self.thread.submit(self.pipeline, prompt, **settings).result().images[0]
        image.save(self.folder / "out.png")
        return Path(self.folder / "out.png")
