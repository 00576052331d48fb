"""The memory of a device: how many samples fit into one call, and trying again with fewer. Also detects a lost GPU."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from jsd.errors import MemoryShortError

if TYPE_CHECKING:
    from jsd.model import Components

T = TypeVar("T")

CPU_ROWS = 16  # more rows in a UNet call gain nothing on a CPU (docs/speed.md)
MOST_ROWS = 64  # more rows would make every user wait longer
FEW, MANY = 2, 8  # the numbers of rows whose memory is measured
GPU_DECODE_BATCH = 4
USABLE_SHARE = 0.9  # of the free memory; the allocator can't use all of it


def max_batch_rows(components: Components) -> int:
    """Return how many UNet rows (samples in the UNet's batch) of the model's default size to put into one call.

    On a GPU this is measured: what fits into memory beside the decoding of pictures. On a CPU it is CPU_ROWS.
    """
    device = components.device
    if device.type != "cuda":
        return CPU_ROWS

    def peak_bytes(call: Callable[[], object]) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before

    try:
        run_unet(components, 1)  # the first call also loads libraries and their workspaces, which stay
        run_vae(components)
        few, many = (peak_bytes(lambda rows=rows: run_unet(components, rows)) for rows in (FEW, MANY))
        decoding = decode_batch(components) * peak_bytes(lambda: run_vae(components))
    except torch.OutOfMemoryError:
        return FEW
    finally:
        torch.cuda.empty_cache()
    # A CUDA graph keeps the memory of its call. All share it, so the largest counts.
    graphs = getattr(components.unet, "graphed_rows", 0)
    return rows_that_fit(torch.cuda.mem_get_info(device)[0], few, many, decoding, graphs)


def decode_batch(components: Components) -> int:
    """Return how many pictures to decode in one VAE call: on a CPU one, as more save no time, else GPU_DECODE_BATCH."""
    return 1 if components.device.type == "cpu" else GPU_DECODE_BATCH


def rows_that_fit(free: int, few: int, many: int, decoding: int, graphs: int = 0) -> int:
    """Return how many UNet rows (samples in a call) fit into memory, from 1 to MOST_ROWS, by linear extrapolation.

    The first four arguments are bytes: the free memory, and what a call of FEW rows, a call of MANY rows and the
    decoding take. `graphs` is the number of rows for whose call memory is kept besides.
    """
    row = max((many - few) / (MANY - FEW), 1)
    fixed = max(few - FEW * row, 0)
    kept = fixed + graphs * row if graphs else 0
    return max(1, min(MOST_ROWS, int((USABLE_SHARE * free - fixed - decoding - kept) / row)))


@torch.inference_mode()
def run_unet(components: Components, rows: int) -> None:
    """Call the UNet once on `rows` latents of zeros of the model's default size, to measure memory or to compile it."""
    x = _zeros(components, rows)
    tokens, width = components.tokenizer.max_length, components.text_encoder.config.hidden_size
    context = torch.zeros(rows, tokens, width, device=x.device, dtype=x.dtype)
    components.unet(x, torch.zeros(rows, device=x.device), context, return_dict=False)


@torch.inference_mode()
def run_vae(components: Components) -> None:
    """Decode one latent of zeros of the model's default size, to measure the memory this takes."""
    components.vae.decode(_zeros(components, 1).to(components.vae.dtype))


def _zeros(components: Components, rows: int) -> torch.Tensor:
    """Return latents of zeros, (rows, c, h, w), for the model's default picture size."""
    own = components.defaults
    shape = (rows, components.unet.config.in_channels, own.height // own.cell, own.width // own.cell)
    return torch.zeros(shape, device=components.device, dtype=components.dtype)


def in_halves(call: Callable[[int], T], count: int) -> tuple[T, int]:
    """Return `call(count)` and the count. If memory runs out, try again with half the count, and so on down to 1.

    Raises `MemoryShortError` if a count of 1 does not fit either.
    """
    while True:
        try:
            return call(count), count
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if count == 1:
                raise MemoryShortError(
                    "out of memory even for one picture at a time; take a smaller width and height, fewer "
                    "num_outputs, or fewer users"
                ) from error
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        count //= 2


class Fitting:
    """How many samples fit into one call, by the shape of a sample, learned where memory was once short.

    A shape that did not fit is called with what fitted. After RETRY such calls all are tried again, because the
    shortage may have passed. After a vain try it takes twice as many calls until the next one.
    """

    RETRY = 20

    def __init__(self) -> None:
        self._short: dict[tuple[int, ...], tuple[int, int, int]] = {}  # shape: what fitted, calls until a try, the next

    def call(self, shape: tuple[int, ...], most: int, call: Callable[[int], T]) -> T:
        """Return `call(count)`, where `count` is `most` or as many as fit. Raises the errors of `in_halves`."""
        fitted, left, wait = self._short.get(shape, (most, 0, self.RETRY))
        tried = min(fitted, most) if left else most
        result, count = in_halves(call, tried)
        if count < tried:
            self._short[shape] = (count, wait, 2 * wait)
        elif shape in self._short:
            if left or most <= fitted:
                self._short[shape] = (fitted, max(0, left - 1), wait)
            else:
                del self._short[shape]
        return result


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory was short."""
    # On a CPU, torch raises a plain RuntimeError. So do some CUDA libraries.
    words = ("allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


def released(error: Exception) -> Exception:
    """Free the tensors that the traceback of `error` keeps alive, as others need the memory, and return `error`."""
    chained: BaseException | None = error
    while chained is not None:
        traceback.clear_frames(chained.__traceback__)
        chained = chained.__cause__ or chained.__context__
    return error


def is_lost(error: Exception) -> bool:
    """Whether `error` means that the GPU is lost: a CUDA error after which every later CUDA call fails too."""
    return isinstance(error, torch.AcceleratorError)


def mark(device: torch.device) -> torch.cuda.Event | None:
    """Return an event that a GPU reaches when it has done all that is queued so far. None on a CPU, which never lags.

    Its `synchronize` waits for that.
    """
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def settle(device: torch.device) -> None:
    """Wait until a GPU has done all that is queued, so that the time it took is counted where it belongs."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
