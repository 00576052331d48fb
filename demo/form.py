"""One tab of the page: its fields, and what its buttons do, with gradio."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from demo import inputs, panels, texts
from demo.album import Album, file_name
from demo.editor import Editor
from demo.studio import Progress, Studio
from jsd.errors import InputError
from jsd.request import (
    MAX_GUIDANCE,
    MAX_LORA_SCALE,
    MIN_GUIDANCE,
    MIN_LORA_SCALE,
    MIN_SIZE,
    PROMPT_STRENGTH,
    SCHEDULER_NAMES,
    Request,
)

HERE = Path(__file__).resolve().parent
MODES = ("draw", "picture", "repaint")
READERS = {"picture": inputs.uploaded, "repaint": inputs.painted}
MOST_STEPS = 100  # on the slider; no sampler gets better with more
EXAMPLE_PICTURE = HERE / "castle.png"
# gradio has keys of its own, such as "image": ours begin with jsd_.
TRANSLATIONS = gr.I18n(
    **{name: {f"jsd_{key}": both[i] for key, both in texts.LABELS.items()} for i, name in enumerate(texts.LANGUAGES)}
)
LISTEN = {"show_progress": "hidden", "api_visibility": "private"}  # for every event


def label(key: str) -> gr.i18n.I18nData:
    """Return the label of `key`, which the browser translates."""
    return TRANSLATIONS(f"jsd_{key}")


class Form:
    """A tab: fields on the left, pictures on the right. Below each field is a place for a sentence on its value.

    It is made inside gradio's layout, and does nothing before `connect`.
    """

    def __init__(self, mode: str, studio: Studio, album: Album):
        self.mode, self.studio, self.album = mode, studio, album
        self.fields: dict[str, gr.components.Component] = {}
        self.refused: dict[str, gr.HTML] = {}
        own = studio.engine.components.defaults
        self.defaults = {
            "negative_prompt": "",
            "num_outputs": 1,
            "width": own.width,
            "height": own.height,
            "num_inference_steps": own.num_inference_steps,
            "guidance_scale": own.guidance_scale,
            "scheduler": own.scheduler,
            "prompt_strength": PROMPT_STRENGTH,
            "lora_scale": 1,
        }
        with gr.Tab(label(mode), id=mode, elem_id=mode), gr.Row(equal_height=False):
            with gr.Column(min_width=300):
                self._lay_out(own.cell)
            with gr.Column(min_width=300, elem_classes="pictures"):
                panel = partial(gr.HTML, apply_default_css=False, most=studio.limits.upload)
                script = (HERE / "panel.js").read_text("utf-8")
                self.panel = panel(label("empty"), js_on_load=script, elem_classes="panel")
                self.folder = gr.State()  # where the pictures of the panel are

    def _lay_out(self, cell: int) -> None:
        """Lay out the fields. `cell` is the model's latent cell, in pixels."""
        limits = self.studio.limits
        if self.mode == "picture":
            self._field(
                "image", gr.Image, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=280
            )
        elif self.mode == "repaint":
            brush = gr.Brush(24, colors=[("#cf4a30", 0.7)], color_mode="fixed")
            options = {"brush": brush, "eraser": gr.Eraser(24), "layers": False, "transforms": (), "type": "filepath"}
            options |= {"format": "png", "sources": ["upload", "clipboard"], "height": 420}
            self._field("image", lambda **more: Editor(**options, **more).component, placeholder=label("editor_hint"))
            gr.HTML(label("mask_hint"), apply_default_css=False, elem_classes="hint")
            self._place("mask")
        self._field("prompt", gr.Textbox, placeholder=label("prompt_hint"), lines=2, max_lines=6)
        with gr.Row(elem_classes="examples"):
            button = partial(gr.Button, size="sm", min_width=0)
            self.examples = {words: button(label(words)) for words, _ in texts.EXAMPLES[self.mode]}
        if self.mode != "draw":
            value = 1 if self.mode == "repaint" else PROMPT_STRENGTH
            self._field("prompt_strength", gr.Slider, minimum=0, maximum=1, step=0.05, value=value)
        with gr.Row():
            with gr.Column(min_width=120):
                self._field("num_outputs", gr.Number, minimum=1, maximum=limits.outputs, step=1, precision=0)
            with gr.Column(min_width=120):
                self._field("seed", gr.Textbox, placeholder=label("seed_hint"), max_lines=1)
        with gr.Accordion(label("settings"), open=False) as self.settings:
            self._field("negative_prompt", gr.Textbox, max_lines=3)
            if self.mode == "draw":  # the size of others follows from their picture
                most = limits.size // cell * cell
                side = partial(gr.Slider, minimum=-(-MIN_SIZE // cell) * cell, maximum=most, step=cell)
                self._field("width", side)
                self._field("height", side)
            most_steps = min(limits.steps, MOST_STEPS)
            self._field("num_inference_steps", gr.Slider, minimum=1, maximum=most_steps, step=1)
            self._field("guidance_scale", gr.Slider, minimum=MIN_GUIDANCE, maximum=MAX_GUIDANCE, step=0.5)
            self._field("scheduler", gr.Dropdown, choices=list(SCHEDULER_NAMES))
            if limits.lora:
                self._field("lora", gr.File, height=140)  # any file, because phones know no .safetensors
                scale = partial(gr.Slider, minimum=MIN_LORA_SCALE, maximum=MAX_LORA_SCALE, step=0.1)
                self._field("lora_scale", scale)
        self.go = gr.Button(label("go"), variant="primary", size="lg", elem_classes="go")
        self.stop = gr.Button(label("stop"), size="lg", visible=False, elem_classes="stop")

    def _field(self, name: str, make: Any, **options: Any) -> None:
        options = {"label": label(name), "value": self.defaults.get(name)} | options
        self.fields[name] = make(**options, elem_classes=f"field-{name}")
        self._place(name)

    def _place(self, name: str) -> None:
        self.refused[name] = gr.HTML("", apply_default_css=False, elem_classes=["place", f"refused-{name}"])

    def connect(self, tabs: gr.Tabs, forms: Mapping[str, Form]) -> None:
        """Tell gradio what happens at each click. `forms` are all of them, to which pictures can go."""
        self.tabs, self.forms, prompt = tabs, forms, self.fields["prompt"]
        for words, button in self.examples.items():
            button.click(None, None, prompt, js=f"() => {json.dumps(words)}", **LISTEN)  # at once, in the browser
            if self.mode != "draw":
                picture = partial(self._picture, EXAMPLE_PICTURE)
                button.click(picture, None, self.fields["image"], queue=False, **LISTEN)
        begin, fields = partial(gr.on, [self.go.click, prompt.submit]), self.fields
        if self.mode == "repaint":
            # gradio turns what the editor has sent into files. Of other values it would complain in its own words.
            painted = gr.State()
            sent = begin(lambda value: value, fields["image"], painted, queue=False, **LISTEN)
            begin, fields = sent.then, {**fields, "image": painted}
        drawing = begin(
            self._draw,
            list(fields.values()),
            [self.go, self.stop, self.panel, self.folder, self.settings, *self.refused.values()],
            concurrency_limit=None,  # the studio has one
            preprocess=False,
            **LISTEN,
        )
        # On a phone the pictures are below the fields, and errors between these.
        scroll = "() => document.querySelector('#{} {}')?.scrollIntoView({{behavior: 'smooth', block: '{}'}})"
        # gradio ignores a click while the drawing before goes on, so the button is back when this is over.
        drawing.then(self._end, None, [self.go, self.stop], queue=False, **LISTEN)
        self.go.click(None, None, None, js=scroll.format(self.mode, ".panel", "nearest"), **LISTEN)
        drawing.then(None, None, None, js=scroll.format(self.mode, ".refused", "nearest"), **LISTEN)
        self.stop.click(self._cancel, None, None, queue=False, **LISTEN)
        shown = [form.fields[name] for form in forms.values() for name in ("prompt", "image") if name in form.fields]
        outputs = [tabs, self.panel, self.fields["seed"], *self.refused.values(), *shown]
        self.panel.click(self._take, [self.folder, prompt], outputs, queue=False, **LISTEN)

    def _visitor(self, request: gr.Request) -> str:
        return f"{request.session_hash} {self.mode}"

    async def _end(self) -> tuple[gr.Button, gr.Button]:
        return gr.Button(visible=True), gr.Button(visible=False)

    async def _cancel(self, request: gr.Request) -> None:
        self.studio.cancel(self._visitor(request))

    async def _draw(self, request: gr.Request, *values: Any) -> AsyncIterator[dict]:
        """Yield what the page shows, at every step. All errors become sentences."""
        language, given = _language(request), {}
        fields = dict(zip(self.fields, values, strict=True))
        picture, lora = fields.pop("image", None), fields.pop("lora", None)

        def make_request() -> Request:
            given.update(inputs.arguments(fields, self.defaults))
            read = READERS.get(self.mode)
            request = Request.from_dict(given | (read(picture) if read else {}) | inputs.adapter(lora))
            given.update({"lora": Path(lora["path"]).name} if lora else {})
            return request

        begin = {self.go: gr.Button(visible=False), self.stop: gr.Button(visible=True)}
        yield begin | dict.fromkeys(self.refused.values(), "")
        try:
            async for news in self.studio.draw(self._visitor(request), make_request):
                if isinstance(news, Progress):
                    yield {self.panel: panels.progress_panel(language, news)}
            folder = await asyncio.to_thread(self.album.add, news)
            yield {self.panel: panels.result_panel(language, news, folder, given), self.folder: str(folder)}
        except InputError as error:
            yield self._refuse(language, error)
        except Exception as error:  # noqa: BLE001 - no visitor is shown a traceback
            if type(error) not in texts.OTHER_ERRORS:
                traceback.print_exc()
            yield {self.panel: panels.message(texts.failure(language, error))}

    def _refuse(self, language: int, error: InputError) -> dict:
        """Return the updates that show an error below its field, or in the place of the pictures if it has none."""
        place, sentence = self.refused.get(error.name), texts.refusal(language, error)
        if place is None:
            return {self.panel: panels.message(sentence)}
        opened = {self.settings: gr.Accordion(open=True)} if place.parent is self.settings else {}
        return opened | {place: panels.field_error(sentence), self.panel: label("empty")}

    def _picture(self, file: Path) -> Any:
        """Return the value with which the field `image` shows a file."""
        return str(file) if self.mode == "picture" else {"background": str(file), "layers": [], "composite": None}

    def _take(self, folder: str | None, prompt: str, event: gr.EventData, request: gr.Request) -> dict:
        """Do what a button below a picture says: take its seed to the field, or the picture to another tab.

        A file that was too large to be uploaded is answered here too.
        """
        do, value = (str(getattr(event, name, "")) for name in ("do", "value"))
        if do == "seed":
            return {self.fields["seed"]: value}
        if do == "large" and value in self.refused:
            sentence = texts.text(_language(request), "large", most=self.studio.limits.upload >> 20)
            return {self.refused[value]: panels.field_error(sentence)}
        form = self.forms.get(do)
        if form is None or "image" not in form.fields or folder is None or not value.isdecimal():
            return {self.panel: gr.skip()}
        file = Path(folder) / file_name(int(value), "png")
        if not file.is_file():
            return {self.panel: panels.message(texts.text(_language(request), "gone"))}
        shown = {form.fields["image"]: form._picture(file), form.fields["prompt"]: prompt}
        return {self.tabs: gr.Tabs(selected=do)} | shown


def _language(request: gr.Request) -> int:
    return texts.language_of(request.headers.get("accept-language", ""))
