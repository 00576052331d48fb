"""gradio's editor of pictures, within limits: what strangers send to it takes no more memory than this, and is decoded
by nobody but `demo.inputs`.

gradio's own keeps all that is sent to it until somebody draws it, makes room for as many layers as a number says, and
decodes every picture before its size is known.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import EditorData
from gradio.data_classes import DataWithFiles, FileData
from gradio.processing_utils import save_bytes_to_cache

LAYERS = ("0", "1", "2", "3")  # their numbers, as they are sent; the editor of the page has one layer
MOST_HELD, MOST_BYTES = 500, 256 << 20  # paintings, and bytes of all of them, that are sent and not yet drawn

Painting = dict[int | None, bytes]  # the files of layers by their number, and of the picture below them (None)


class Editor:
    """`component` is gradio's editor, whose two ways in are those of this class."""

    def __init__(self, **options: Any):
        self.component = gr.ImageEditor(**options)
        self.component.accept_blobs = self.accept_blobs
        self.component.preprocess = self.files
        self._held: OrderedDict[str, Painting] = OrderedDict()  # by the browser's id, the newest last
        self._lock = Lock()  # guards _held

    @server
    def accept_blobs(self, data: DataWithFiles) -> None:
        """Keep a file of a painting, which the browser sends before the painting is drawn. If there are too many, the
        oldest paintings go.
        """
        sent, key = data.data, None
        if sent["type"] == "layer" and sent["index"] in LAYERS:
            key = int(sent["index"])
        elif sent["type"] != "background":  # such as both in one, which nobody needs
            return
        with self._lock:
            painting = self._held.pop(sent["id"], {})
            self._held[sent["id"]] = painting | {key: data.files[0][1]}
            while len(self._held) > MOST_HELD or self._bytes() > MOST_BYTES:
                self._held.popitem(last=False)

    def files(self, payload: EditorData | None) -> dict[str, Any] | None:
        """Return the files of what an editor holds, as `demo.inputs.painted` takes them. They are not decoded."""
        if payload is None:
            return None
        if payload.id is None:
            background, layers = payload.background, payload.layers[: len(LAYERS)]
        else:
            with self._lock:
                painting = self._held.pop(payload.id, {})
            background, layers = painting.pop(None, None), list(painting.values())
        return {
            "background": background and self._file(background),
            "layers": [self._file(layer) for layer in layers],
            "composite": None,
        }

    def _bytes(self) -> int:
        return sum(len(content) for painting in self._held.values() for content in painting.values())

    def _file(self, content: FileData | bytes) -> str:
        """Return the path of a file, which gradio removes when it is old."""
        if isinstance(content, FileData):
            return content.path
        path = save_bytes_to_cache(content, "painting.png", self.component.GRADIO_CACHE)
        self.component.temp_files.add(path)
        return path
