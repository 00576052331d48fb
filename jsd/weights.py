"""A model folder: find it, verify it, load it.

The layout is the standard diffusers one (`model_index.json`, `tokenizer/`, `text_encoder/`, `unet/`, `vae/`,
`scheduler/`, `safety_checker/`, `feature_extractor/`) plus `MANIFEST.json` (see `jsd.manifest`). Only safetensors are
read, never a pickle, and nothing comes over the network.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd.manifest import MANIFEST, RESTORE, Verification, begin_verification, read_json
from jsd.request import Defaults, InputError, Request, WeightsError
from jsd.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil, CLIPTextModel

ROOT = Path(__file__).resolve().parent.parent / "weights"


@dataclass
class Components:
    """A loaded model: what sampling needs, all on one device, in evaluation mode, without gradients."""

    name: str
    defaults: Defaults
    tokenizer: Tokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    safety_checker: StableDiffusionSafetyChecker | None
    image_processor: CLIPImageProcessorPil | None
    device: torch.device
    dtype: torch.dtype


def find_weights(folder: str | Path | None = None) -> Path:
    """The model folder: `folder`, else `$JSD_WEIGHTS`, else `weights/japanese-stable-diffusion`, else
    `weights/embedded`. Raises `WeightsError` if it is not there."""
    chosen = folder or os.environ.get("JSD_WEIGHTS")
    candidates = [Path(chosen)] if chosen else [ROOT / "japanese-stable-diffusion", ROOT / "embedded"]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise WeightsError(f"{candidates[-1]}: no such folder; set JSD_WEIGHTS to a model folder, or check out weights/")


def load(
    folder: str | Path | Verification,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    safety_checker: bool = True,
    lora: str | Path | None = None,
) -> Components:
    """Verify `folder`, or go on with a verification of it, and load it onto `device`, with the adapter in the file
    `lora` merged into its UNet.

    `dtype` is float32 on a CPU and float16 elsewhere unless given. With `safety_checker=False` the checker is not
    loaded; with True a folder without one is an error, so that leaving it out is always the deployer's choice.
    Raises `WeightsError` if the folder fails verification, a tensor is missing or left over, or parts do not fit.
    """
    return begin_loading(folder, device, dtype, safety_checker).finish(lora)


@dataclass(frozen=True)
class Loading:
    """A model folder whose tensors are being read, on a thread of its own, once their hashes are right."""

    verification: Verification
    device: torch.device
    dtype: torch.dtype
    tensors: dict[str, Future[dict[str, torch.Tensor]]]

    def finish(self, lora: str | Path | None = None) -> Components:
        """The components, as `load` describes them."""
        try:
            return _load(self, lora)
        finally:
            for reading in self.tensors.values():
                reading.cancel()
            self.verification.finish()  # what the hashes say goes before what a loader makes of a file


def begin_loading(
    folder: str | Path | Verification,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    safety_checker: bool = True,
) -> Loading:
    """Begin what `load` does, or go on with a verification of the folder: the models' classes can be imported while
    the tensors are read. Raises `WeightsError`.
    """
    import torch

    verification = folder if isinstance(folder, Verification) else begin_verification(folder)
    parts = ["unet", "text_encoder", "vae"]
    if safety_checker:
        checker = verification.folder / "safety_checker"
        if not checker.is_dir():
            verification.finish()
            raise WeightsError(f"{checker}: missing; add one, or switch it off (JSD_SAFETY_CHECKER)")
        parts.append("safety_checker")
    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.float16
    reader = ThreadPoolExecutor(1, "jsd-read")
    tensors = {part: reader.submit(_tensors, verification, part, device, dtype) for part in parts}
    reader.shutdown(wait=False)  # it ends with its work: OpenMP keeps workers for every thread that ever computed
    return Loading(verification, device, dtype, tensors)


def _load(loading: Loading, lora: str | Path | None) -> Components:
    verification, device = loading.verification, loading.device
    folder, manifest = verification.folder, verification.manifest
    AutoencoderKL, UNet2DConditionModel, StableDiffusionSafetyChecker, CLIPImageProcessorPil, CLIPTextModel = (
        import_models()
    )
    classes = {
        "unet": UNet2DConditionModel,
        "text_encoder": CLIPTextModel,
        "vae": AutoencoderKL,
        "safety_checker": StableDiffusionSafetyChecker,
    }
    processor = None
    if "safety_checker" in loading.tensors:
        processor = CLIPImageProcessorPil(**read_json(verification.file("feature_extractor/preprocessor_config.json")))
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    models = {part: _model(loading, part, classes[part]) for part in loading.tensors}
    text_encoder, unet, vae = (models[part] for part in ("text_encoder", "unet", "vae"))
    if lora:
        from jsd.lora import merge_lora

        merge_lora(unet, Path(lora))
    _check_fit(folder, tokenizer, text_encoder.config, unet.config, vae.config)

    cell = 2 ** (len(vae.config.block_out_channels) - 1)
    sample_size = unet.config.sample_size
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else sample_size
    defaults = Defaults(**{"width": width * cell, "height": height * cell, **manifest.get("defaults", {})}, cell=cell)
    try:
        Request("defaults").resolve(defaults)
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST}: defaults: {error}") from error
    return Components(
        name=str(manifest.get("name", folder.name)),
        defaults=defaults,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler_config=read_json(verification.file("scheduler/scheduler_config.json")),
        safety_checker=models.get("safety_checker"),
        image_processor=processor,
        device=device,
        dtype=loading.dtype,
    )


def import_models() -> tuple[type, ...]:
    """The classes of a model's parts. Verifying or finding a folder should not cost the seconds these imports take."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil, CLIPTextModel

    return AutoencoderKL, UNet2DConditionModel, StableDiffusionSafetyChecker, CLIPImageProcessorPil, CLIPTextModel


def _tensors(
    verification: Verification, part: str, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """The tensors of one part: each goes from its file to the device, in its type and layout at once, because fresh
    memory is what loading waits for.
    """
    import torch
    from safetensors import safe_open

    verification.finish()
    # A third faster on a CPU, and what GPUs want; the UNet's speed does not depend on it.
    layout = torch.channels_last if part == "vae" else torch.preserve_format

    def placed(tensor: torch.Tensor) -> torch.Tensor:
        # Copied, or a tensor of the wanted type would be a view of the file, and change with it.
        memory_format = layout if tensor.dim() == 4 else torch.preserve_format
        return tensor.to(dtype, copy=True, memory_format=memory_format)

    with safe_open(verification.weights(part), "pt", device=str(device)) as data:
        return {name: placed(data.get_tensor(name)) for name in data.keys()}  # noqa: SIM118


def _model(loading: Loading, part: str, model_class: type) -> Any:
    """One part, around the tensors that are being read. `load_model` takes a fifth longer. Raises `WeightsError`."""
    from accelerate import init_empty_weights  # noqa: TID251 - as diffusers does it

    folder = loading.verification.folder / part
    config = read_json(loading.verification.file(f"{part}/config.json"))
    config = {key: value for key, value in config.items() if "attn_implementation" not in key}  # may name code to fetch
    try:
        with init_empty_weights(include_buffers=False):
            if hasattr(model_class, "from_config"):  # diffusers
                model = model_class.from_config(config)
            else:
                model = model_class(model_class.config_class.from_dict(config))
        tensors = loading.tensors[part].result()
    except WeightsError:
        raise
    except Exception as error:
        raise _not_loadable(folder, model_class, error) from error
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    both = wanted.keys() & tensors.keys()
    _check_none(folder, "missing keys", wanted.keys() - both)
    _check_none(folder, "unexpected keys", tensors.keys() - both)
    _check_none(folder, "mismatched keys", {name for name in both if wanted[name] != tensors[name].shape})
    model.load_state_dict(tensors, assign=True)
    return model.to(loading.device).eval().requires_grad_(False)


def load_model(model_class: type, folder: Path, dtype: torch.dtype) -> Any:
    """One component of any diffusers folder, also of an older one, with every one of its tensors read from the file and
    none left over.
    """
    try:
        model, info = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except Exception as error:
        raise _not_loadable(folder, model_class, error) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        _check_none(folder, kind.replace("_", " "), {str(key) for key in info.get(kind) or ()})
    return model.requires_grad_(False)  # from_pretrained has set evaluation mode


def _not_loadable(folder: Path, model_class: type, error: Exception) -> WeightsError:
    return WeightsError(f"{folder}: can't be loaded as {model_class.__name__}: {error}")


def _check_none(folder: Path, kind: str, keys: set[str]) -> None:
    if keys:
        raise WeightsError(f"{folder}: {len(keys)} {kind}, {min(keys)} first; convert it again")


def _check_fit(folder: Path, tokenizer: Tokenizer, text: Any, unet: Any, vae: Any) -> None:
    """The parts of a folder belong together: a wrong tokenizer or encoder would draw, but not what was asked for."""
    latent = {vae.latent_channels, unet.in_channels, unet.out_channels}
    for fits, problem in (
        (tokenizer.vocabulary_size <= text.vocab_size, "the tokenizer has more tokens than the text encoder"),
        (tokenizer.max_length <= text.max_position_embeddings, "the tokenizer's rows are too long for the encoder"),
        (unet.cross_attention_dim in (text.hidden_size, None), "the UNet expects another width of text encoder"),
        (len(latent) == 1, "the UNet and the VAE differ in latent channels"),
    ):
        if not fits:
            raise WeightsError(f"{folder}: {problem}; {RESTORE}")
