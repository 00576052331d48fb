"""The quality figure of a model folder: how often its picture shows what the prompt names, in the style it names.

    python -m jsd eval --json quality.json --sheet quality.png

Draws (concept, style) pairs it was trained on, pairs it was not, and other spellings of the concepts, with the folder's
own defaults, and asks the judge (see `embedded.judge`), whose own accuracy on unseen renderings is printed beside the
result. A picture that the safety checker holds back, or that is none for lack of finite numbers, counts as wrong. The
first run trains the judge, which takes minutes; the last line printed is the report as JSON.
"""

import argparse
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from embedded import alarms, claims
from embedded import judge as judges
from embedded.drawing import decoded_jobs
from embedded.drawings import Drawing, fetch, load_concepts, load_drawings
from embedded.judge import Verdict
from embedded.prompts import GROUPS, Task, sample_aliases, sample_pairs
from embedded.references import PAIRED, split_style
from embedded.styles import STYLES
from jsd import sampling, settings
from jsd.cli import parse_inputs
from jsd.errors import InputError, NaNError, NSFWError, SettingError, WeightsError
from jsd.model import Components
from jsd.request import Defaults, Request

SETTINGS = ("width", "height", "num_inference_steps", "guidance_scale", "guidance_interval", "scheduler")
COLUMNS, ROWS, TILE = 12, 8, 128  # the contact sheet; TILE in pixels


def draw(components: Components, prompts: Sequence[str], seed: int) -> list[Image.Image | None]:
    """A picture a prompt with the model's own defaults, prompt i with seed `seed` + i; None where there is none."""
    requests = [Request(prompt, seed=i) for i, prompt in enumerate(prompts, seed)]
    jobs = decoded_jobs(components, requests)
    return [_finish(components, job) for job in tqdm(jobs, "drawing", len(requests))]


def _finish(components: Components, job: sampling.Job) -> Image.Image | None:
    try:
        return sampling.finish(components, job).images[0]
    except (NSFWError, NaNError):
        return None


def report(tasks: Sequence[Task], verdicts: Sequence[Verdict | None]) -> dict:
    """Shares from 0 to 1 of right verdicts (None is a wrong one), in all and a style, and what went wrong."""
    rows = [
        (task, bool(seen and seen.concept == task.concept), bool(seen and seen.style == task.style))
        for task, seen in zip(tasks, verdicts, strict=True)
    ]
    pairs = [row for row in rows if row[0].group != "aliases"]
    styles = {}
    for name in dict.fromkeys([*STYLES, *(f"{medium}+colour" for medium in PAIRED)]):
        chosen = [row for row in pairs if _style_row(row[0].style) == name]
        styles[name] = {"prompts": len(chosen), "top1": _share(chosen, 1), "style": _share(chosen, 2)}
    top1 = {group: _share([row for row in rows if row[0].group == group], 1) for group in GROUPS}
    failures = [
        {"prompt": task.prompt, "group": task.group, "concept": task.concept, "style": task.style}
        | {"number": i, "seen": seen and [seen.concept, seen.style]}
        for i, ((task, concept, style), seen) in enumerate(zip(rows, verdicts, strict=True))
        if not (concept and (style or task.group == "aliases"))
    ]
    return {
        "top1": {group: top1[group] for group in ("trained", "held_out")},
        "style": _share(pairs, 2),
        "aliases": top1["aliases"],
        "prompts": len(pairs),
        "alias_prompts": len(rows) - len(pairs),
        "styles": styles,
        "failures": failures,
    }


def _style_row(style: str) -> str:
    medium, ground = split_style(style)
    return f"{medium}+colour" if ground and medium != "plain" else style


def _share(rows: Sequence[tuple], column: int) -> float | None:
    """The share of the rows whose `column` is true; None without rows."""
    return round(float(np.mean([row[column] for row in rows])), 4) if rows else None


def table(tasks: Sequence[Task], result: Mapping) -> str:
    """The report for a reader."""
    count = {group: sum(task.group == group for task in tasks) for group in GROUPS}
    lines = [(group.replace("_", " "), count[group], result["top1"][group], "") for group in ("trained", "held_out")]
    lines += [("trained and held out", result["prompts"], "", result["style"])]
    lines += [("other spellings", count["aliases"], result["aliases"], "")]
    lines += [(f"  {name}", row["prompts"], row["top1"], row["style"]) for name, row in result["styles"].items()]
    lines += [("the judge, unseen", "", result["judge"]["top1"], result["judge"]["style"])]
    percent = [[f"{x:.1%}" if isinstance(x, float) else ("" if x is None else x) for x in line] for line in lines]
    return "\n".join(f"{a:22}{b:>8}{c:>10}{d:>10}" for a, b, c, d in [("", "prompts", "concept", "style"), *percent])


def sheet(
    tasks: Sequence[Task], images: Sequence[Image.Image | None], verdicts: Sequence[Verdict | None]
) -> Image.Image:
    """A grid of pictures, trained pairs above held-out ones; a wrong concept or style is framed in red."""
    held = [i for i, task in enumerate(tasks) if task.group == "held_out"][: COLUMNS * (ROWS // 3)]
    trained = [i for i, task in enumerate(tasks) if task.group == "trained"][: COLUMNS * ROWS - len(held)]
    rows = -(-len(trained + held) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * TILE, rows * TILE), "white")
    for place, i in enumerate(trained + held):
        tile = (images[i] or Image.new("RGB", (TILE, TILE), "grey")).resize((TILE, TILE), Image.LANCZOS)
        if verdicts[i] != Verdict(tasks[i].concept, tasks[i].style):
            tile = ImageOps.expand(ImageOps.crop(tile, 3), 3, "red")
        canvas.paste(tile, (place % COLUMNS * TILE, place // COLUMNS * TILE))
    return canvas


def main(argv: Sequence[str]) -> int:
    """Run the evaluation. Returns 0 when it ran, whatever the figures; 2 for what the user got wrong."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    for file in filter(None, (arguments.json, arguments.sheet)):
        if not file.absolute().parent.is_dir():
            parser.error(f"there is no folder {file.absolute().parent}; make it first")
    try:
        components = settings.load_components(arguments.weights)
        defaults = replace(components.defaults, **_settings(arguments.input, components.defaults))
        components = replace(components, defaults=defaults)
        fetch(arguments.workdir / "icons")
    except (InputError, WeightsError, SettingError, OSError, subprocess.CalledProcessError) as error:
        parser.error(str(error))
    drawings = load_drawings(arguments.workdir / "icons")
    tasks = sample_pairs(drawings, arguments.prompts, arguments.seed)
    tasks += sample_aliases(load_concepts(), arguments.aliases, arguments.seed)
    judge = judges.get(drawings, arguments.workdir / "eval")

    images = draw(components, [task.prompt for task in tasks], arguments.seed)
    weapons = alarms.prompts(drawings, arguments.weapons, arguments.seed)
    held_back = draw(components, weapons, arguments.seed + len(tasks))
    seen = iter(judge([image for image in images if image is not None]))
    verdicts = [None if image is None else next(seen) for image in images]
    result = report(tasks, verdicts) | {"judge": judge.accuracy, "model": components.name, "seed": arguments.seed}
    result |= {"settings": {name: getattr(defaults, name) for name in SETTINGS}}
    result |= {"safety": alarms.report(tasks, images, held_back)}
    print(table(tasks, result))
    print(alarms.line(result["safety"]))
    sheets = {arguments.sheet: sheet(tasks, images, verdicts)} if arguments.sheet else {}
    if arguments.claims or arguments.columns:
        figures, claims_sheet = _claims(components, arguments, drawings, judge)
        result |= figures
        print(claims.lines(result))
        if arguments.sheet:
            sheets[arguments.sheet.with_stem(f"{arguments.sheet.stem}-claims")] = claims_sheet
    text = json.dumps(result, ensure_ascii=False)
    if arguments.json:
        work = arguments.json.with_name(f".{arguments.json.name}")
        work.write_text(text + "\n", encoding="utf-8")
        os.replace(work, arguments.json)
    for file, picture in sheets.items():
        work = file.with_name(f".{file.name}")
        picture.save(work, "PNG")
        os.replace(work, file)
    print(text)
    return 0


def _claims(
    components: Components, arguments: argparse.Namespace, drawings: Sequence[Drawing], judge: judges.Judge
) -> tuple[dict, Image.Image]:
    """The table of claims (see `embedded.claims`): this model's column, and those of the stages before it; and a sheet
    of pictures. All are of what is drawn, before the safety checkers, which are not the same for every stage.
    """
    count, seed = max(1, arguments.prompts // 3), arguments.seed
    asked, pairs = claims.claims(drawings, count, seed), claims.twos(drawings, count, seed)
    columns, result = {}, {}
    if arguments.columns:
        base, stage1 = (settings.load_components(arguments.columns / name) for name in ("base", "stage1"))
        columns = {"base_ja": (base, "ja"), "base_en": (base, "en"), "stage1": (stage1, "ja")}
        result["tokens"] = claims.tokens(asked, components.tokenizer, base.tokenizer)
    columns["stage2"] = (components, "ja")
    answers = {
        name: claims.answer(language, partial(draw, replace(model, safety_checker=None), seed=seed), asked, pairs)
        for name, (model, language) in columns.items()
    }
    picture, prompts = claims.contact_sheet(answers, asked, pairs)
    return result | claims.table(answers, asked, pairs, judge) | {"claims_sheet": prompts}, picture


def _settings(pairs: Sequence[str], defaults: Defaults) -> dict[str, object]:
    """What `-i` asks for. Raises `InputError` for what is no setting of a model's, or out of range."""
    values = parse_inputs(pairs)
    for name in values:
        if name not in SETTINGS:
            raise InputError("-i", f"{name} is no setting of the evaluation; they are {', '.join(SETTINGS)}")
    request = Request("settings", **values)
    request.resolve(defaults)
    return {name: getattr(request, name) for name in values}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jsd eval", description="Measure how good a model's pictures are.")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="write a grid of pictures, wrong ones framed, and FILE-claims.png",
    )
    parser.add_argument(
        "-i",
        dest="input",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting in place of the model's",
    )
    parser.add_argument("--prompts", type=_count, default=600, help="pairs, a third of them held out (default: 600)")
    parser.add_argument("--aliases", type=_count, default=150, help="prompts in other spellings (default: 150)")
    parser.add_argument("--weapons", type=_count, default=150, help="prompts for the safety checker (default: 150)")
    parser.add_argument("--seed", type=_count, default=0, help="of the choice of prompts and of the pictures")
    parser.add_argument("--claims", action="store_true", help="the README's claims as well: some minutes more")
    parser.add_argument(
        "--columns", type=Path, metavar="FOLDER", help="base/ and stage1/ of the training, beside the model (claims)"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="icon sets and the judge (default: runs)")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} was given; a number from 0 to 1000000 is wanted")
    return int(text)
