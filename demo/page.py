"""The page's layout and what its buttons do, with gradio."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo import inputs, panels, texts
from demo.album import Album
from demo.limits import Limits
from demo.studio import Progress, Studio
from jsd.engine import Engine
from jsd.errors import InputError
from jsd.request import MAX_GUIDANCE, MIN_GUIDANCE, MIN_SIZE, PROMPT_STRENGTH, SCHEDULER_NAMES, Request

HERE = Path(__file__).resolve().parent
MODES = ("draw", "picture", "repaint")
FONTS = ["system-ui", "Hiragino Sans", "Yu Gothic UI", "Noto Sans CJK JP", "Noto Sans JP", "sans-serif"]
MAX_UPLOAD = "32mb"
# To click. In English the second words stand beside them.
EXAMPLES = {
    "draw": [
        ("富士山 油絵", "Mount Fuji, oil"),
        ("猫の肖像画 油絵", "portrait of a cat, oil"),
        ("桜 水彩画", "cherry blossom, watercolour"),
        ("青い背景の城", "castle on blue"),
        ("団子 ドット絵", "dango, pixels"),
        ("ロケット 白黒", "rocket, black and white"),
    ],
    "picture": [("青い背景の鳥居", "torii on blue"), ("城 水彩画", "castle, watercolour")],
    "repaint": [("青い背景のロケット", "rocket on blue"), ("青い背景の猫", "cat on blue")],
}
EXAMPLE_PICTURE, EXAMPLE_MASK = HERE / "examples" / "castle.png", HERE / "examples" / "mask.png"
LABELS = texts.LABELS | {words: (f"{words} · {english}", words) for many in EXAMPLES.values() for words, english in many}
TRANSLATIONS = gr.I18n(**{name: {f"jsd_{key}": both[i] for key, both in LABELS.items()} for i, name in enumerate(texts.LANGUAGES)})


def t(key: str) -> gr.i18n.I18nData:
    """Return the label of `key`, which the browser translates. gradio has keys of its own, such as image."""
    return TRANSLATIONS(f"jsd_{key}")


class Page:
    """The page for one engine. `launch` serves it."""

    def __init__(self, engine: Engine, limits: Limits, album: Album):
        self.studio, self.album, self.limits = Studio(engine, limits), album, limits
        self.defaults = engine.components.defaults
        with gr.Blocks(title="Japanese Stable Diffusion", analytics_enabled=False, delete_cache=(600, 3600)) as self.blocks:
            plain = partial(gr.HTML, apply_default_css=False)
            plain("<h1>Japanese Stable Diffusion</h1>")
            plain(t("title"), elem_classes="subtitle")
            with gr.Tabs() as self.tabs:
                self.forms = {mode: Form(self, mode) for mode in MODES}
            plain(f"<footer>{engine.components.name} · {engine.components.device.type}</footer>")
            for form in self.forms.values():
                form.connect()

    def launch(self, host: str, port: int | None) -> str:
        """Serve the page in the background and return its address. Without a `port` it is the first free one from 7860.

        Raises `OSError` if the port is taken.
        """
        colour = gr.themes.Color(*"#fdf3f0 #fbe3dc #f6c5b9 #ee9f8c #e27258 #cf4a30 #b93b23 #992f1c #7a2717 #5c1f13 #3a120a".split())
        hues = {"primary_hue": colour, "secondary_hue": colour, "neutral_hue": gr.themes.colors.stone}
        theme = gr.themes.Base(**hues, font=FONTS, font_mono=["ui-monospace", "monospace"])
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
            max_file_size=MAX_UPLOAD,
            allowed_paths=[str(self.album.root), str(HERE / "examples")],
            favicon_path=HERE / "favicon.png",
            css_paths=HERE / "style.css",
            theme=theme,
            i18n=TRANSLATIONS,
        )
        return url


class Form:
    """One tab: fields on the left, pictures on the right. Below each field is a place for a sentence on its value."""

    def __init__(self, page: Page, mode: str):
        self.page, self.mode = page, mode
        self.fields: dict[str, gr.components.Component] = {}
        self.refused: dict[str, gr.HTML] = {}
        own = page.defaults
        self.defaults = {
            "negative_prompt": "",
            "num_outputs": 1,
            "width": own.width,
            "height": own.height,
            "num_inference_steps": own.num_inference_steps,
            "guidance_scale": own.guidance_scale,
            "scheduler": own.scheduler,
            "prompt_strength": PROMPT_STRENGTH,
        }
        with gr.Tab(t(mode), id=mode, elem_id=mode), gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                self._fill()
            with gr.Column(min_width=300):
                buttons = (HERE / "panel.js").read_text("utf-8")
                self.panel = gr.HTML(t("empty"), js_on_load=buttons, elem_classes="panel", apply_default_css=False)
                self.folder = gr.State()  # where the pictures of the panel are

    def _fill(self) -> None:
        if self.mode == "picture":
            self._field("image", gr.Image, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=280)
        elif self.mode == "repaint":
            brush = gr.Brush(24, colors=["#cf4a30"], color_mode="fixed")
            editor = partial(gr.ImageEditor, brush=brush, eraser=gr.Eraser(24), layers=gr.LayerOptions(allow_additional_layers=False), transforms=())
            editor = partial(editor, type="filepath", format="png", sources=["upload", "clipboard"], height=420)
            self._field("image", editor, placeholder=t("editor_hint"))
            gr.HTML(t("mask_hint"), apply_default_css=False, elem_classes="hint")
            self._place("mask")
        self._field("prompt", gr.Textbox, placeholder=t("prompt_hint"), lines=2, max_lines=6)
        with gr.Row(elem_classes="examples"):
            self.examples = {words: gr.Button(t(words), size="sm", min_width=0) for words, _ in EXAMPLES[self.mode]}
        if self.mode != "draw":
            value = 1 if self.mode == "repaint" else PROMPT_STRENGTH
            self._field("prompt_strength", gr.Slider, minimum=0, maximum=1, step=0.05, value=value)
        with gr.Row():
            with gr.Column(min_width=120):
                self._field("num_outputs", gr.Number, minimum=1, maximum=self.page.limits.outputs, step=1, precision=0)
            with gr.Column(min_width=120):
                self._field("seed", gr.Textbox, placeholder=t("seed_hint"), max_lines=1)
        with gr.Accordion(t("settings"), open=False) as self.settings:
            self._field("negative_prompt", gr.Textbox, max_lines=3)
            if self.mode == "draw":  # the size of others follows from their picture
                side = partial(gr.Slider, minimum=-(-MIN_SIZE // self.page.defaults.cell) * self.page.defaults.cell)
                for name in ("width", "height"):
                    self._field(name, side, maximum=self.page.limits.size, step=self.page.defaults.cell)
            self._field("num_inference_steps", gr.Slider, minimum=1, maximum=min(self.page.limits.steps, 100), step=1)
            self._field("guidance_scale", gr.Slider, minimum=MIN_GUIDANCE, maximum=MAX_GUIDANCE, step=0.5)
            self._field("scheduler", gr.Dropdown, choices=list(SCHEDULER_NAMES))
        self.go = gr.Button(t("go"), variant="primary", size="lg", elem_classes="go")
        self.stop = gr.Button(t("stop"), size="lg", visible=False, elem_classes="stop")

    def _field(self, name: str, make: Any, **options: Any) -> None:
        options = {"label": t(name), "value": self.defaults.get(name)} | options
        self.fields[name] = make(**options, elem_classes=f"field-{name}")
        self._place(name)

    def _place(self, name: str) -> None:
        self.refused[name] = gr.HTML(visible=False, apply_default_css=False, elem_classes=f"refused-{name}")

    def connect(self) -> None:
        """Tell gradio what happens at each click. The other forms must exist."""
        forms, prompt = self.page.forms, self.fields["prompt"]
        listen = {"show_progress": "hidden", "api_visibility": "private"}
        for words, button in self.examples.items():
            if self.mode == "draw":
                button.click(None, None, prompt, js=f"() => {words!r}", **listen)
            else:
                button.click(partial(self._example, words), None, [prompt, self.fields["image"]], **listen)
        outputs = [self.go, self.stop, self.panel, self.folder, self.settings, *self.refused.values()]
        gr.on(
            [self.go.click, prompt.submit],
            self._draw,
            list(self.fields.values()),
            outputs,
            concurrency_limit=None,
            preprocess=self.mode == "repaint",  # the editor's strokes; other values are checked as they come
            **listen,
        )
        show = f"() => document.querySelector('#{self.mode} .panel').scrollIntoView({{behavior: 'smooth', block: 'nearest'}})"
        self.go.click(None, None, None, js=show, **listen)
        self.stop.click(self._cancel, None, None, queue=False, **listen)
        shown = [form.fields[name] for form in forms.values() for name in ("prompt", "image") if name in form.fields]
        self.panel.click(
            self._take,
            [self.folder, prompt],
            [self.page.tabs, self.panel, self.fields["seed"], *shown],
            queue=False,
            **listen,
        )

    def _visitor(self, request: gr.Request) -> str:
        return f"{request.session_hash} {self.mode}"

    async def _cancel(self, request: gr.Request) -> None:
        self.page.studio.cancel(self._visitor(request))

    async def _draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict]:
        """Yield what the page shows at every step. All errors become sentences."""
        language = texts.language_of(request.headers.get("accept-language", ""))
        fields = dict(zip(self.fields, values, strict=True))
        picture, given = fields.pop("image", None), {}

        def make_request() -> Request:
            given.update(inputs.arguments(fields, self.defaults))
            read = {"picture": inputs.uploaded, "repaint": inputs.painted}.get(self.mode)
            return Request.from_dict(given | (read(picture) if read else {}))

        yield {self.go: gr.Button(visible=False), self.stop: gr.Button(visible=True)} | {
            place: gr.HTML(visible=False) for place in self.refused.values()
        }
        end = {self.go: gr.Button(visible=True), self.stop: gr.Button(visible=False)}
        try:
            async for news in self.page.studio.draw(self._visitor(request), make_request):
                if isinstance(news, Progress):
                    yield {self.panel: panels.progress_panel(language, news)}
            folder = await asyncio.to_thread(self.page.album.add, news)
            yield end | {self.panel: panels.result_panel(language, news, folder, given), self.folder: str(folder)}
        except InputError as error:
            yield end | self._refuse(language, error)
        except Exception as error:  # noqa: BLE001 - no visitor is shown a traceback
            if type(error) not in texts.OTHER_ERRORS:
                traceback.print_exc()
            yield end | {self.panel: panels.message(texts.failure(language, error))}

    def _refuse(self, language: int, error: InputError) -> dict:
        place = self.refused.get(error.name)
        sentence = texts.refusal(language, error)
        if place is None:
            return {self.panel: panels.message(sentence)}
        inside = place.parent is self.settings
        return {
            place: gr.HTML(panels.field_error(sentence), visible=True),
            self.panel: t("empty"),
        } | ({self.settings: gr.Accordion(open=True)} if inside else {})

    def _example(self, words: str) -> tuple[str, Any]:
        picture = str(EXAMPLE_PICTURE)
        if self.mode == "repaint":
            return words, {"background": picture, "layers": [str(EXAMPLE_MASK)], "composite": None}
        return words, picture

    def _take(self, folder: str | None, prompt: str, event: gr.EventData, request: gr.Request) -> dict:
        """Do what a button below a picture says: reuse its seed, or take the picture to another tab."""
        do, value = str(event._data.get("do")), str(event._data.get("value"))
        if do == "seed":
            return {self.fields["seed"]: value}
        form, file = self.page.forms.get(do), Path(folder or "") / f"{value}.png"
        if form is None or "image" not in form.fields or not value.isdecimal():
            return {}
        if not file.is_file():
            language = texts.language_of(request.headers.get("accept-language", ""))
            return {self.panel: panels.message(texts.text(language, "gone"))}
        picture = str(file) if do == "picture" else {"background": str(file), "layers": [], "composite": None}
        return {self.page.tabs: gr.Tabs(selected=do), form.fields["image"]: picture, form.fields["prompt"]: prompt}
