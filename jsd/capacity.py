"""What one call may hold: UNet rows, measured on a GPU by what a few of them take of its memory, and pictures."""

from __future__ import annotations

from collections.abc import Callable

import torch

from jsd.weights import Components

# On two cores a row of the embedded model takes 2.2 ms among 16, 5.8 among two, 9 alone, and among 32 still 2.0.
CPU_ROWS = 16
MOST_ROWS = 64  # more would only make everybody wait
FEW, MANY = 2, 8
DECODED = 4
SHARE = 0.9  # of the free memory; the rest is for what the allocator can't use


def max_batch_rows(components: Components) -> int:
    """Rows of the model's own size that fit the device beside a call of decoding; CPU_ROWS on a CPU, FEW where MANY do
    not fit.
    """
    if components.device.type != "cuda":
        return CPU_ROWS
    device = components.device

    def peak(call: Callable[[], object]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    try:
        few, many = (peak(lambda rows=rows: run_unet(components, rows)) for rows in (FEW, MANY))
        decode = decode_batch(components) * peak(lambda: run_vae(components))
    except torch.OutOfMemoryError:
        return FEW
    finally:
        torch.cuda.empty_cache()
    return rows_that_fit(torch.cuda.mem_get_info(device)[0], few, many, decode)


def decode_batch(components: Components) -> int:
    """Pictures to decode in one call: on a CPU more take as much longer as they are more."""
    return 1 if components.device.type == "cpu" else DECODED


def rows_that_fit(free: int, few: int, many: int, decode: int) -> int:
    """From 1 to MOST_ROWS, by the bytes that are free, and those that FEW rows, MANY rows and a decoding take."""
    row = max((many - few) / (MANY - FEW), 1)
    fixed = max(few - FEW * row, 0)
    return max(1, min(MOST_ROWS, int((SHARE * free - fixed - decode) / row)))


@torch.inference_mode()
def run_unet(components: Components, rows: int) -> None:
    """One call of the UNet with `rows` rows of zeros of the model's own size."""
    defaults, config = components.defaults, components.unet.config
    size = (defaults.height // defaults.cell, defaults.width // defaults.cell)
    x = torch.zeros(rows, config.in_channels, *size, device=components.device, dtype=components.dtype)
    states = components.text_encoder.config.hidden_size
    context = torch.zeros(rows, components.tokenizer.max_length, states, device=x.device, dtype=x.dtype)
    components.unet(x, torch.zeros(rows, device=x.device), context, return_dict=False)


@torch.inference_mode()
def run_vae(components: Components) -> None:
    """The decoding of one picture of the model's own size."""
    defaults, config = components.defaults, components.vae.config
    size = (defaults.height // defaults.cell, defaults.width // defaults.cell)
    components.vae.decode(
        torch.zeros(1, config.latent_channels, *size, device=components.device, dtype=components.dtype)
    )
