"""What the page shows beside its fields, as HTML: progress, errors, pictures. Every text in it is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from demo.album import file_name
from demo.recipe import command, http_request, inputs_of
from demo.studio import Progress
from demo.texts import notes, text
from jsd.request import OUTPUT_FORMATS
from jsd.result import Result

FORMAT_LABELS = {"png": "↓ PNG", "jpg": "↓ JPEG", "webp": "↓ WebP"}


def progress_panel(language: int, progress: Progress) -> str:
    """Return a bar with the step and the time left."""
    if not progress.total:
        words = text(language, "reading")
    elif progress.done == progress.total:
        words = text(language, "finishing")
    else:
        words = text(language, "step", done=progress.done, total=progress.total)
        if progress.left is not None:
            words += text(language, "left", seconds=max(1, round(progress.left)))
    share = progress.done / max(progress.total, 1)
    bar = f'<i style="width:{100 * share:.0f}%"></i>'
    return f'<div class="empty"><div class="progress" role="status"><b>{bar}</b>{escape(words)}</div></div>'


def message(sentence: str) -> str:
    """Return a sentence in the place of the pictures."""
    return f'<div class="empty"><span role="alert">{escape(sentence)}</span></div>'


def field_error(sentence: str) -> str:
    """Return a sentence below a field."""
    return f'<p class="refused" role="alert">{escape(sentence)}</p>'


def result_panel(language: int, result: Result, folder: Path, given: Mapping[str, Any]) -> str:
    """Return the pictures of a result, whose files are in `folder`, and below how to draw them again."""
    cards = "".join(_card(language, result, folder, i) for i in range(len(result.images)))
    remarks = "".join(f'<p class="note">{escape(note)}</p>' for note in notes(language, result))
    return f'<div class="cards">{cards}</div>{remarks}{_again(language, result, folder, given)}'


def _card(language: int, result: Result, folder: Path, i: int) -> str:
    seed, request = result.seeds[i], result.request
    links = " ".join(
        f'<a href="{_url(folder / file_name(seed, suffix))}" download>{FORMAT_LABELS[suffix]}</a>'
        for suffix in OUTPUT_FORMATS
    )
    facts = text(
        language,
        "facts",
        width=request.width,
        height=request.height,
        steps=request.num_inference_steps,
        scheduler=request.scheduler,
    )
    buttons = "".join(
        f'<button data-do="{do}" data-value="{seed}">{text(language, key)}</button>'
        for do, key in (("seed", "reuse"), ("picture", "to_picture"), ("repaint", "to_repaint"))
    )
    shown = _url(folder / file_name(seed, "png"))
    return (
        f'<figure><a href="{shown}" target="_blank"><img src="{shown}" alt="{escape(request.prompt)}"'
        f' width="{request.width}" height="{request.height}"></a><figcaption>'
        f'<div class="facts"><span>{text(language, "seed")} <b>{seed}</b></span><span>{facts}</span></div>'
        f'<div class="deeds">{links}</div><div class="deeds">{buttons}</div></figcaption></figure>'
    )


def _again(language: int, result: Result, folder: Path, given: Mapping[str, Any]) -> str:
    inputs = inputs_of(result, given)
    files = [name for name in ("picture.png", "mask.png") if (folder / name).exists()]
    links = " ".join(f'<a href="{_url(folder / name)}" download>{name}</a>' for name in files)
    needed = f'<p class="deeds">{text(language, "files")} {links}</p>' if files else ""
    blocks = "".join(
        f"<h4>{text(language, title)}</h4><div class=code><pre>{escape(words)}</pre>"
        f'<button data-do="copy">{text(language, "copy")}</button></div>'
        for title, words in (("command", command(inputs)), ("http", http_request(inputs)))
    )
    return f"<details><summary>{text(language, 'again')}</summary>{needed}{blocks}</details>"


def _url(file: Path) -> str:
    return escape(f"gradio_api/file={file}")
