"""The page as a whole, and how it is served, with gradio."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr

from demo.album import Album
from demo.form import EXAMPLE_PICTURE, MODES, TRANSLATIONS, Form, label
from demo.limits import Limits
from demo.studio import Studio
from jsd.engine import Engine

HERE = Path(__file__).resolve().parent
NAME = "Japanese Stable Diffusion"
# Vermilion, from light to dark. The fonts are those of the visitor's system.
VERMILION = ("#fdf3f0", "#fbe3dc", "#f6c5b9", "#ee9f8c", "#e27258", "#cf4a30")
VERMILION += ("#b93b23", "#992f1c", "#7a2717", "#5c1f13", "#3a120a")
FONTS = ["system-ui", "Hiragino Sans", "Yu Gothic UI", "Noto Sans CJK JP", "Noto Sans JP", "sans-serif"]


class Page:
    """The page for one engine. Visitors share it. Their pictures are kept in `album`, whose folder they can read."""

    def __init__(self, engine: Engine, limits: Limits, album: Album):
        self.album, self.limits = album, limits
        studio, model = Studio(engine, limits), engine.components
        plain = partial(gr.HTML, apply_default_css=False)
        with gr.Blocks(title=NAME, analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            plain(f"<h1>{NAME}</h1>")
            plain(label("title"), elem_classes="subtitle")
            with gr.Tabs() as tabs:
                forms = {mode: Form(mode, studio, album) for mode in MODES}
            plain(f"<footer>{model.name} · {model.device.type}</footer>")
            for form in forms.values():
                form.connect(tabs, forms)

    def launch(self, host: str, port: int | None) -> str:
        """Serve the page in the background and return its address. Without a `port` it is the first free one from 7860.

        Raises `OSError` if the port is taken.
        """
        colour = gr.themes.Color(*VERMILION)
        hues = {"primary_hue": colour, "secondary_hue": colour, "neutral_hue": gr.themes.colors.stone}
        _, url, _ = self.blocks.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size=self.limits.upload,
            allowed_paths=[str(self.album.root), str(EXAMPLE_PICTURE)],
            favicon_path=HERE / "favicon.png",
            css_paths=HERE / "style.css",
            theme=gr.themes.Base(**hues, font=FONTS, font_mono=["ui-monospace", "monospace"]),
            i18n=TRANSLATIONS,
        )
        return url

    def close(self) -> None:
        """Stop serving."""
        self.blocks.close(verbose=False)
