"""Measure how often a model's picture shows what the prompt says: things, places, numbers, colours, relations, style.

    python -m jsd eval --json quality.json --sheet quality.png

The prompts name scenes of the sorts that the model was trained on, compositions that were held out of its training, and
things in other spellings (`embedded.prompts`). Some are drawn again, with another seed and with a strong guidance. More
prompts name weapons, to measure how many the safety checker holds back, and things as people type them, to compare them
with their common spelling (`embedded.typed`). The pictures are generated with the model's
default settings, and a network, the judge (`embedded.judge`), tells what each one shows. Its own accuracy on unseen
renderings stands beside every figure. A picture that the safety checker holds back, or whose numbers are not finite,
counts as wrong. The last printed line is the report as JSON.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from embedded import again, alarms, claims, typed
from embedded.generate import draw
from embedded.judge import FILE, Judge
from embedded.prompts import Task, sample_tasks
from embedded.scenes import Concept, load_concepts, prompt_for
from embedded.scores import cell_text, report, sheet, table
from jsd import settings
from jsd.atomic import atomic_file, write_text
from jsd.errors import InputError, shown
from jsd.inputs import parse_inputs
from jsd.language import Text
from jsd.manifest import find_weights
from jsd.model import Components
from jsd.request import Defaults, Request
from jsd.train.options import check_file, whole

SETTINGS = ("width", "height", "num_inference_steps", "guidance_scale", "guidance_interval", "scheduler")
COUNT = whole(0, 1_000_000)
CLAIMS = 20  # prompts in each category of claims that is no list of words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m jsd eval` to `parser`."""
    parser.description = Text("Measure how good a model's pictures are.")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="default: the one that serving would use")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there, too")
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="write a grid of pictures there, wrong ones with a red frame, and FILE-claims.png for the claims",
    )
    parser.add_argument(
        "-i",
        dest="input",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting in place of the model's default",
    )
    parser.add_argument("--prompts", type=COUNT, default=600, help="scenes, of ten sorts (default: 600)")
    parser.add_argument("--again", type=COUNT, default=50, help="of these, single things drawn again (default: 50)")
    parser.add_argument("--weapons", type=COUNT, default=150, help="prompts for the safety checker (default: 150)")
    parser.add_argument("--typed", type=COUNT, default=100, help="things as people type them (default: 100)")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the prompts and the pictures (default: 0)")
    parser.add_argument("--claims", action="store_true", help="measure the README's claims, too: some minutes more")
    parser.add_argument(
        "--columns", type=Path, metavar="FOLDER", help="compare with the base/ and stage1/ of the training (claims)"
    )
    parser.add_argument(
        "--workdir",
        "--aliases",
        dest="unused",
        metavar="ANY",
        help="not needed any more: the judge lies in weights/judge, and --prompts has other spellings",
    )
    parser.add_argument(
        "--judge", type=Path, metavar="FILE", default=FILE, help=Text("default: weights/judge/{}", FILE.name)
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the evaluation: generate pictures, judge them, and print the report. Write the files that the options name.
    Raises `InputError` for a wrong option.
    """
    _check(arguments)
    judge = Judge.load(arguments.judge)
    components = settings.load_components(arguments.weights)
    defaults = replace(components.defaults, **_settings(arguments.input, components.defaults))
    components = replace(components, defaults=defaults)
    concepts = {name: concept for name, concept in load_concepts().items() if name in judge.names["concepts"]}
    try:
        tasks = sample_tasks(concepts, arguments.prompts, arguments.seed)
    except ValueError as error:
        raise InputError("--prompts", *error.args) from error
    weapons = alarms.sample_weapons(concepts, arguments.weapons, arguments.seed)

    images = draw(components, [task.ja for task in tasks], arguments.seed)
    weapon_images = draw(components, [task.ja for task in weapons], arguments.seed + len(tasks))
    verdicts = judge(images)
    result: dict[str, Any] = report(tasks, verdicts)
    result |= {"judge": judge.accuracy, "model": components.name, "seed": arguments.seed}
    result |= {"settings": {name: getattr(defaults, name) for name in SETTINGS}}
    result |= {"safety": alarms.report(tasks, images, weapon_images)}
    print(table(result, judge.accuracy))
    print(alarms.line(result["safety"]))
    sheets = {arguments.sheet: sheet(tasks, images, verdicts)} if arguments.sheet else {}
    if arguments.again:
        result["again"] = _again(components, arguments, tasks, images, judge)
    if arguments.typed:
        result["typed"] = _typed(components, arguments, concepts, judge)
        print(typed.line(result["typed"]))
    if arguments.claims or arguments.columns:
        figures, claims_sheet = _claims(components, arguments, concepts, judge)
        result |= figures
        print(claims.lines(result))
        if arguments.sheet:
            sheets[arguments.sheet.with_stem(f"{arguments.sheet.stem}-claims")] = claims_sheet
    text = json.dumps(result, ensure_ascii=False)
    if arguments.json:
        write_text(arguments.json, text + "\n")
    for file, picture in sheets.items():
        with atomic_file(file) as part:
            picture.save(part, "PNG")
    print(text)


def _check(arguments: argparse.Namespace) -> None:
    """Find the mistakes in the options before anything is loaded."""
    for flag, file in (("--json", arguments.json), ("--sheet", arguments.sheet)):
        if file and not file.absolute().parent.is_dir():
            raise InputError(flag, "there is no folder {}; make it first", shown(str(file.absolute().parent)))
        if file:
            check_file(flag, file)
    for name in ("base", "stage1") if arguments.columns else ():
        find_weights(arguments.columns / name)
    if arguments.sheet and not arguments.prompts:
        raise InputError("--sheet", "given with --prompts 0; its pictures are those of the prompts, so give some")


def _again(
    components: Components,
    arguments: argparse.Namespace,
    tasks: Sequence[Task],
    images: Sequence[Image.Image | None],
    judge: Judge,
) -> dict[str, float | int | None]:
    """Draw the first single things again, print how they differ and how many are right, and return the figures."""
    chosen = [i for i, task in enumerate(tasks) if task.group == "one"][: arguments.again]
    prompts = [tasks[i].ja for i in chosen]
    strong = replace(components, defaults=replace(components.defaults, guidance_scale=again.STRONG))
    other_seed, stronger = (draw(model, prompts, arguments.seed + 100_000) for model in (components, strong))
    figures = again.report([tasks[i] for i in chosen], [images[i] for i in chosen], other_seed, stronger, judge)
    seeds, guidance = cell_text(figures["two_seeds"]) or "-", cell_text(figures["guidance_7_5"]) or "-"
    print(
        Text(
            "{} single things: {} differ between two seeds, {} right at guidance {}",
            len(chosen),
            seeds,
            guidance,
            again.STRONG,
        )
    )
    return figures


def _typed(
    components: Components, arguments: argparse.Namespace, concepts: Mapping[str, Concept], judge: Judge
) -> dict[str, float | int | None]:
    """Draw things as people type them, and with the same seeds in their common spelling. Return the figures. What gives
    the same token ids gives the same picture, so it is drawn once.
    """
    tasks = typed.sample_typed(concepts.values(), arguments.typed, arguments.seed)
    images = draw(components, [task.ja for task in tasks], arguments.seed)
    common = list(images)
    for i, task in enumerate(tasks):
        prompt, ids = prompt_for(task.scene), components.tokenizer.encode
        if ids(prompt) != ids(task.ja):
            (common[i],) = draw(components, [prompt], arguments.seed + i)
    return typed.report(tasks, judge(images), judge(common))


def _claims(
    components: Components, arguments: argparse.Namespace, concepts: Mapping[str, Concept], judge: Judge
) -> tuple[dict[str, Any], Image.Image]:
    """Measure what the 2022 README claims (see `embedded.claims`), for this model and, with `--columns`, for the models
    of the training stages before it. Returns a dict of figures and a sheet of pictures. No safety checker is used: only
    the last stage's is calibrated.
    """
    asked = claims.sample_claims(concepts, CLAIMS, arguments.seed)
    columns, result = {}, {}
    if arguments.columns:
        base, stage1 = (settings.load_components(arguments.columns / name) for name in ("base", "stage1"))
        columns = {"base_ja": (base, "ja"), "base_en": (base, "en"), "stage1": (stage1, "ja")}
        result["tokens"] = claims.tokens(asked, components.tokenizer, base.tokenizer)
    columns["stage2"] = (components, "ja")
    answers = {
        name: draw(replace(model, safety_checker=None), [getattr(task, language) for task in asked], arguments.seed)
        for name, (model, language) in columns.items()
    }
    picture, prompts = claims.contact_sheet(answers, asked)
    return result | claims.report(answers, asked, judge) | {"claims_sheet": prompts}, picture


def _settings(pairs: Sequence[str], defaults: Defaults) -> dict[str, object]:
    """Return the settings that `-i` gives ("NAME=VALUE") as a dict. Raises `InputError` for a name that is no setting
    of the evaluation, and for a value out of range.
    """
    values = parse_inputs(pairs)
    for name in values:
        if name not in SETTINGS:
            raise InputError("-i", "{} is no setting of the evaluation; allowed are {}", name, ", ".join(SETTINGS))
    request = Request("settings", **values)
    request.resolve(defaults)
    return {name: getattr(request, name) for name in values}
