"""CUDA graphs of the UNet. A small call takes a GPU a third of the time that Python needs to launch its kernels, so it
is recorded once and replayed.
"""

from __future__ import annotations

import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakSet

import torch

from jsd.device import is_out_of_memory

ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # the sizes of recorded calls
LARGE = 200_000_000  # parameters. With so many, calls of more than LARGE_ROWS keep a GPU busy without a graph.
LARGE_ROWS = 16
MOST_GRAPHS = 24
TRIES = 3  # of recording a call when memory is short

Call = Callable[[], torch.Tensor]
Replay = Callable[[], None]


@dataclass
class Graph:
    """A recorded call: `replay` computes `eps` from what the other tensors hold then."""

    x: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    eps: torch.Tensor
    replay: Replay


class GraphedUNet:
    """Calls a UNet, by a CUDA graph where one helps. The arguments and the returned tuple are those of diffusers' UNet.

    A call of n rows takes the next larger graph of ROWS. Its further rows hold old latents, which changes nothing, as
    the rows of a batch do not depend on each other. The first call of a kind runs without a graph, which also warms up
    the libraries, and the second is recorded. Kinds differ in rows, latent size, tokens or dtype. Rows larger than the
    model's own count for as many more, so that the memory that graphs keep has a bound. At most `most` graphs are kept,
    those used last. Where recording fails, the kind runs without a graph from then on. If memory was short, recording
    is tried again, TRIES times in all.

    Calls of up to `graphed_rows` rows are recorded (see `rows_to_record`).

    A graph reads the weights where they lay when it was recorded. So it sees what an adapter changes in place.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        record: Callable[[Call], tuple[Replay, torch.Tensor]],
        graphed_rows: int = LARGE_ROWS,
        most: int = MOST_GRAPHS,
    ):
        self.unet, self.config, self.graphed_rows = unet, unet.config, graphed_rows
        self._record, self._most = record, most
        self._graphs: OrderedDict[tuple, Graph] = OrderedDict()
        self._seen: set[tuple] = set()
        self._failed: Counter[tuple] = Counter()
        size = unet.config.sample_size
        self._area = size**2 if isinstance(size, int) else math.prod(size)

    @torch.inference_mode()
    def __call__(
        self, x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, return_dict: bool = False
    ) -> tuple[torch.Tensor]:
        """Predict eps, (n, c, h, w), for latents `x` of that shape, timesteps `t`, (n,), and `context`, (n, tokens,
        width). Nothing else may be asked for.
        """
        n, scale = len(x), math.ceil(x.shape[-2] * x.shape[-1] / self._area)
        rows = next((rows for rows in ROWS if rows >= n and rows * scale <= self.graphed_rows), None)
        kind = (rows, x.shape[1:], context.shape[1:], x.dtype)
        if rows is None or self._failed[kind] >= TRIES:
            return self.unet(x, t, context, return_dict=False)
        if kind not in self._seen:
            self._seen.add(kind)
            return self.unet(x, t, context, return_dict=False)
        graph = self._graphs.get(kind) or self._recorded(kind, x, t, context)
        if graph is None:
            return self.unet(x, t, context, return_dict=False)
        self._graphs[kind] = graph
        self._graphs.move_to_end(kind)
        while len(self._graphs) > self._most:
            self._graphs.popitem(last=False)
        for place, value in ((graph.x, x), (graph.t, t), (graph.context, context)):
            place[:n].copy_(value)
        graph.replay()
        return (graph.eps[:n].clone(),)

    def _recorded(self, kind: tuple, *inputs: torch.Tensor) -> Graph | None:
        """Record a call of a kind. Returns None where that fails, after a line in the log."""
        try:
            places = [value.new_zeros((kind[0], *value.shape[1:])) for value in inputs]
            replay, eps = self._record(lambda: self.unet(*places, return_dict=False)[0])
        except Exception as error:  # noqa: BLE001 - many libraries can refuse, each with errors of its own
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # raises if the GPU is lost
            self._failed[kind] += 1 if is_out_of_memory(error) else TRIES
            print(f"no CUDA graph of {kind[0]} rows: {type(error).__name__}; they run without one", file=sys.stderr)
            return None
        return Graph(*places, eps, replay)


def rows_to_record(unet: torch.nn.Module) -> int:
    """Return up to how many rows a call of this UNet is worth recording."""
    large = sum(parameter.numel() for parameter in unet.parameters()) >= LARGE
    return LARGE_ROWS if large else ROWS[-1]


class CudaRecorder:
    """Records calls on `device` as CUDA graphs, which share one pool of memory. Needs a GPU.

    After a failure for another reason than memory it records no more. Such a failure leaves torch's allocator with a
    pointer to the graph, and in a state that the next recording would trip over.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool = device, None
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._failed: torch.cuda.CUDAGraph | None = None

    def __call__(self, call: Call) -> tuple[Replay, torch.Tensor]:
        """Record a call. Returns the function that replays it, and the tensor that it writes."""
        if self._failed is not None:
            raise RuntimeError("recording has failed before")
        if not self._graphs:  # a pool ends with the last of its graphs
            self._pool = torch.cuda.graph_pool_handle()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # Other threads may use the GPU meanwhile.
            with (
                torch.cuda.device(self._device),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                result = call()
        except BaseException as error:
            torch.cuda.set_stream(stream)  # torch may have left this thread on the stream of the recording
            if not is_out_of_memory(error):
                self._failed = graph
            raise
        self._graphs.add(graph)
        return graph.replay, result
