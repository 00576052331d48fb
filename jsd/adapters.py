"""The LoRA adapters of a model: `Adapters` reads them, keeps those used last, and switches the weights between them.

A merged adapter costs no time in sampling, and a switch less than a step as a rule (docs/speed.md). Adapters beside the
weights could share a call, but each of their layers would take time in every step, and no CUDA graph could be replayed.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from jsd.errors import QueueFullError, WeightsError
from jsd.lora import Change, add_lora, find_file, read_lora

HELD = 4  # adapters are kept for later requests
MOST_BYTES = 2 << 30  # of all adapters in memory, those that requests and results hold included


@dataclass(frozen=True)
class Adapter:
    """An adapter that was read for a model. `sha256` is that of its file, in hex digits."""

    sha256: str
    changes: dict[str, Change] = field(compare=False, repr=False)

    @property
    def size(self) -> int:
        """The bytes of its matrices."""
        return sum(matrix.nbytes for change in self.changes.values() for matrix in change[1:] if matrix is not None)


class Adapters:
    """Reads adapters for a UNet and a text encoder, and merges one at a time into each, in place.

    The weights as they were are kept beside them, so that the model itself comes back exactly. `read` may be called on
    any thread, `merge` only on the one that draws. `switches` counts the changes of a part, which took `seconds`.
    """

    def __init__(self, unet: torch.nn.Module, text_encoder: torch.nn.Module):
        self._parts = {"unet": unet, "text_encoder": text_encoder}
        self._merged: dict[str, tuple[str, float] | None] = dict.fromkeys(self._parts)  # the hash and the scale
        self._own: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {part: [] for part in self._parts}
        self._lock = threading.Lock()  # guards _known and _held
        self._known: WeakValueDictionary[str, Adapter] = WeakValueDictionary()  # those that somebody still needs
        self._held: deque[Adapter] = deque(maxlen=HELD)
        self.switches, self.seconds = 0, 0.0

    def read(self, source: Path | bytes) -> Adapter:
        """Read an adapter, a file, a folder or the bytes of a file. Bytes that are known already are not read again.

        Raises the errors of `read_lora`, and `QueueFullError` if those of other requests have MOST_BYTES.
        """
        if isinstance(source, Path):
            changes = read_lora(source, **self._parts)
            return Adapter(hashlib.sha256(find_file(source).read_bytes()).hexdigest(), changes)
        name = hashlib.sha256(source).hexdigest()
        with self._lock:
            adapter = self._known.get(name)
        adapter = adapter or Adapter(name, read_lora(source, **self._parts))
        with self._lock:
            adapter = self._known.setdefault(name, adapter)
            if adapter in self._held:
                self._held.remove(adapter)
            if self._size() > MOST_BYTES:
                self._held.clear()
            if self._size() > max(MOST_BYTES, adapter.size):
                raise QueueFullError("adapters in use have {} GB already, the most; try again later", MOST_BYTES >> 30)
            self._held.append(adapter)
        return adapter

    def merge(self, part: str, adapter: Adapter | None, scale: float = 1.0) -> None:
        """Give a part, "unet" or "text_encoder", its own weights with `adapter` times `scale` added, if there is one.

        Raises `WeightsError` if a weight would not be finite in its type. Then the part has its own weights again.
        """
        wanted = adapter and (adapter.sha256, scale)
        if wanted == self._merged[part]:
            return
        began = time.perf_counter()
        self._restore(part)
        try:
            for name, change in adapter.changes.items() if adapter else ():
                of, _, place = name.partition(".")
                if of != part:
                    continue
                weight = self._parts[part].get_parameter(place)
                value = add_lora(weight, change, scale)
                if not value.isfinite().all():
                    raise WeightsError("{}: not finite in {} with this adapter; lower its scale", name, weight.dtype)
                self._own[part].append((weight, weight.detach().clone()))
                weight.data.copy_(value)
        except BaseException:
            self._restore(part)
            raise
        self._merged[part] = wanted
        self.switches += 1
        self.seconds += time.perf_counter() - began

    def _restore(self, part: str) -> None:
        """Take the adapter of a part away. Needs no memory, so it can't fail for want of it."""
        self._merged[part] = None
        while self._own[part]:
            weight, own = self._own[part].pop()
            weight.data.copy_(own)

    def _size(self) -> int:
        return sum(adapter.size for adapter in self._known.values())
