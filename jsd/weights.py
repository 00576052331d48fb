"""A model folder: find it, verify it against its manifest, load it.

The layout is the standard diffusers one (`model_index.json`, `tokenizer/`, `text_encoder/`, `unet/`, `vae/`,
`scheduler/`, `safety_checker/`, `feature_extractor/`) plus `MANIFEST.json`: the model's name, its defaults, and the
size and sha256 of every file. Only safetensors are read, never a pickle, and nothing comes over the network.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jsd.request import Defaults, InputError, Request, WeightsError, shown
from jsd.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil, CLIPTextModel

MANIFEST = "MANIFEST.json"
ROOT = Path(__file__).resolve().parent.parent / "weights"
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle")
READ_BY_LOADERS = (".safetensors", ".json", ".model", ".txt")
RESTORE = "restore the folder from its source"


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


def verify(folder: str | Path) -> dict[str, Any]:
    """Check every file of `folder` against its `MANIFEST.json`, reading each once; the manifest is returned.

    Raises `WeightsError`, naming the file, for one that is missing, truncated, altered or not listed, and for a pickle.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    _check_hashes(folder, manifest)
    return manifest


def _check_listed(folder: Path) -> dict[str, Any]:
    """The manifest, when the files are those it lists, and as large."""
    manifest = _read_json(folder / MANIFEST)
    listed = manifest.get("files")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{folder / MANIFEST}: lists no files; {RESTORE}")
    for path in _files(folder):
        if path not in listed and path.endswith(READ_BY_LOADERS):
            raise WeightsError(f"{folder / path}: not listed in {MANIFEST}; remove the file, or {RESTORE}")
    # Sizes first: a truncated download is told at once, not after gigabytes of hashing.
    for path, entry in listed.items():
        _check_size(folder, path, entry)
    return manifest


def _check_hashes(folder: Path, manifest: dict[str, Any]) -> None:
    for path, entry in manifest["files"].items():
        if sha256(folder / path) != entry["sha256"]:
            raise WeightsError(f"{folder / path}: altered (its sha256 is not the one in {MANIFEST}); {RESTORE}")


def write_manifest(folder: str | Path, *, name: str, defaults: dict[str, Any], **about: Any) -> Path:
    """Write `MANIFEST.json` for the files now in `folder`, in one piece, and return its path.

    `defaults` holds width, height, num_inference_steps, guidance_scale, scheduler, or some of them; `about` is free:
    training, data, licences. Raises `WeightsError` for a default out of range, or a pickle in the folder.
    """
    folder = Path(folder)
    _check_defaults(folder, defaults)
    files = {path: {"sha256": sha256(folder / path), "size": (folder / path).stat().st_size} for path in _files(folder)}
    text = json.dumps({"name": name, "defaults": defaults, **about, "files": files}, ensure_ascii=False, indent=2)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=".manifest-", delete=False) as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, folder / MANIFEST)
    return folder / MANIFEST


def load(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    safety_checker: bool = True,
    lora: str | Path | None = None,
) -> Components:
    """Verify `folder` and load it onto `device`, with the adapter in the file `lora` merged into its UNet.

    `dtype` is float32 on a CPU and float16 elsewhere unless given. With `safety_checker=False` the checker is not
    loaded; with True a folder without one is an error, so that leaving it out is always the deployer's choice.
    Raises `WeightsError` if the folder fails verification, a tensor is missing or left over, or parts do not fit.
    """
    folder = Path(folder)
    manifest = _check_listed(folder)
    _check_defaults(folder, manifest.get("defaults", {}))
    # Hashed on a second thread while the parts are read: what is read is safetensors and JSON, which can do no harm,
    # and nothing is given out before the hashes are right. What they say goes before what a loader makes of the file.
    with ThreadPoolExecutor(1) as pool:
        hashed = pool.submit(_check_hashes, folder, manifest)
        try:
            return _load(folder, manifest, device, dtype, safety_checker, lora)
        finally:
            hashed.result()


def _load(
    folder: Path,
    manifest: dict[str, Any],
    device: str | torch.device,
    dtype: torch.dtype | None,
    safety_checker: bool,
    lora: str | Path | None,
) -> Components:
    import torch

    AutoencoderKL, UNet2DConditionModel, StableDiffusionSafetyChecker, CLIPImageProcessorPil, CLIPTextModel = (
        import_models()
    )

    device = torch.device(device)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.float16

    def model(model_class: type, part: str) -> Any:
        return load_model(model_class, folder / part, dtype).to(device)

    checker = processor = None
    if safety_checker:
        if not (folder / "safety_checker").is_dir():
            raise WeightsError(f"{folder / 'safety_checker'}: missing; add one, or switch it off (JSD_SAFETY_CHECKER)")
        checker = model(StableDiffusionSafetyChecker, "safety_checker")
        processor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor", local_files_only=True)
    tokenizer = Tokenizer.from_folder(folder / "tokenizer")
    text_encoder = model(CLIPTextModel, "text_encoder")
    unet = model(UNet2DConditionModel, "unet")
    if lora:
        from jsd.lora import merge_lora

        merge_lora(unet, Path(lora))
    vae = model(AutoencoderKL, "vae")
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
        scheduler_config=_read_json(folder / "scheduler" / "scheduler_config.json"),
        safety_checker=checker,
        image_processor=processor,
        device=device,
        dtype=dtype,
    )


def import_models() -> tuple[type, ...]:
    """The classes of a model's parts. Verifying or finding a folder should not cost the seconds these imports take."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPImageProcessorPil, CLIPTextModel

    return AutoencoderKL, UNet2DConditionModel, StableDiffusionSafetyChecker, CLIPImageProcessorPil, CLIPTextModel


def load_model(model_class: type, folder: Path, dtype: torch.dtype) -> Any:
    """One component, with every one of its tensors read from the file and none left over."""
    try:
        model, info = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=dtype
        )
    except Exception as error:
        raise WeightsError(f"{folder}: can't be loaded as {model_class.__name__}: {error}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(kind):
            keys = sorted(str(key) for key in info[kind])
            raise WeightsError(f"{folder}: {len(keys)} {kind.replace('_', ' ')}, {keys[0]} first; convert it again")
    return model.requires_grad_(False)  # from_pretrained has set evaluation mode


def _files(folder: Path) -> list[str]:
    """Relative paths of the files of a model folder, sorted; hidden ones and the manifest aside. No pickle passes."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for path in paths:
        if path.lower().endswith(PICKLES):
            raise WeightsError(f"{folder / path}: a pickle can run code and is never loaded; convert it to safetensors")
    return [p for p in paths if p != MANIFEST and not any(part.startswith(".") for part in PurePosixPath(p).parts)]


def _check_size(folder: Path, path: str, entry: Any) -> None:
    well_formed = isinstance(entry, dict) and isinstance(entry.get("size"), int) and "sha256" in entry
    if not well_formed or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise WeightsError(f"{folder / MANIFEST}: entry {shown(path)} is malformed; {RESTORE}")
    if not (folder / path).is_file():
        raise WeightsError(f"{folder / path}: missing; {RESTORE}")
    size = (folder / path).stat().st_size
    if size != entry["size"]:
        raise WeightsError(f"{folder / path}: {size} bytes, {entry['size']} expected; {RESTORE}")


def _check_defaults(folder: Path, defaults: Any) -> None:
    allowed = {f.name for f in fields(Defaults)} - {"cell"}
    if not isinstance(defaults, dict) or not set(defaults) <= allowed or None in defaults.values():
        raise WeightsError(f"{folder / MANIFEST}: defaults {shown(defaults)}; allowed are {', '.join(sorted(allowed))}")
    try:
        Request(prompt="defaults", **defaults)
    except InputError as error:
        raise WeightsError(f"{folder / MANIFEST}: defaults: {error}") from error


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: missing or unreadable ({error}); {RESTORE}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: not a JSON object; {RESTORE}")
    return value


def sha256(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
