"""Measure how often a model's picture shows what the prompt names, in the style that the prompt names.

    python -m jsd eval --json quality.json --sheet quality.png

The prompts name (concept, style) pairs that the model was trained on, pairs that were held out of its training, and
concepts in other spellings. More prompts name weapons, to measure how many the safety checker holds back. The pictures
are generated with the model's default settings, and a classifier, the judge (`embedded.judge`), tells what each one
shows. The judge's own accuracy on unseen renderings is printed, too. A picture that the safety checker holds back, or
whose numbers are not finite, counts as wrong. The first run trains the judge, which takes minutes. The last printed
line is the report as JSON.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from embedded import alarms, claims
from embedded import judge as judges
from embedded.drawings import Drawing, fetch, load_concepts, load_drawings
from embedded.generate import draw
from embedded.judge import judge_pictures
from embedded.prompts import sample_aliases, sample_pairs
from embedded.scores import report, sheet, table
from jsd import settings
from jsd.atomic import atomic_file, write_text
from jsd.errors import InputError, shown
from jsd.inputs import parse_inputs
from jsd.manifest import find_weights
from jsd.model import Components
from jsd.request import Defaults, Request
from jsd.train.options import check_file, check_folder, whole

SETTINGS = ("width", "height", "num_inference_steps", "guidance_scale", "guidance_interval", "scheduler")
COUNT = whole(0, 1_000_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m jsd eval` to `parser`."""
    parser.description = "Measure how good a model's pictures are."
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
    parser.add_argument("--prompts", type=COUNT, default=600, help="pairs, a third of them held out (default: 600)")
    parser.add_argument("--aliases", type=COUNT, default=150, help="prompts in other spellings (default: 150)")
    parser.add_argument("--weapons", type=COUNT, default=150, help="prompts for the safety checker (default: 150)")
    parser.add_argument("--seed", type=COUNT, default=0, help="seed of the prompts and the pictures (default: 0)")
    parser.add_argument("--claims", action="store_true", help="measure the README's claims, too: some minutes more")
    parser.add_argument(
        "--columns", type=Path, metavar="FOLDER", help="compare with the base/ and stage1/ of the training (claims)"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="icon sets and the judge (default: runs)")


def run(arguments: argparse.Namespace) -> None:
    """Run the evaluation: generate pictures, judge them, and print the report. Write the files that the options name.
    Raises `InputError` for a wrong option.
    """
    for flag, file in (("--json", arguments.json), ("--sheet", arguments.sheet)):
        if file and not file.absolute().parent.is_dir():
            raise InputError(flag, f"there is no folder {shown(str(file.absolute().parent))}; make it first")
        if file:
            check_file(flag, file)
    check_folder("--workdir", arguments.workdir)
    for name in ("base", "stage1") if arguments.columns else ():
        find_weights(arguments.columns / name)
    if arguments.sheet and not arguments.prompts:
        raise InputError("--sheet", "given with --prompts 0; its pictures are those of the prompts, so give some")
    components = settings.load_components(arguments.weights)
    defaults = replace(components.defaults, **_settings(arguments.input, components.defaults))
    components = replace(components, defaults=defaults)
    fetch(arguments.workdir / "icons")
    drawings = load_drawings(arguments.workdir / "icons")
    tasks = sample_pairs(drawings, arguments.prompts, arguments.seed)
    tasks += sample_aliases(load_concepts(), arguments.aliases, arguments.seed)
    judge = judges.get(drawings, arguments.workdir / "eval")

    images = draw(components, [task.prompt for task in tasks], arguments.seed)
    weapons = alarms.prompts(drawings, arguments.weapons, arguments.seed)
    weapon_images = draw(components, weapons, arguments.seed + len(tasks))
    verdicts = judge_pictures(judge, images)
    result = report(tasks, verdicts) | {"judge": judge.accuracy, "model": components.name, "seed": arguments.seed}
    result |= {"settings": {name: getattr(defaults, name) for name in SETTINGS}}
    result |= {"safety": alarms.report(tasks, images, weapon_images)}
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
        write_text(arguments.json, text + "\n")
    for file, picture in sheets.items():
        with atomic_file(file) as part:
            picture.save(part, "PNG")
    print(text)


def _claims(
    components: Components, arguments: argparse.Namespace, drawings: Sequence[Drawing], judge: judges.Judge
) -> tuple[dict[str, Any], Image.Image]:
    """Measure what the 2022 README claims (see `embedded.claims`), for this model and, with `--columns`, for the models
    of the training stages before it. Returns a dict of figures and a sheet of pictures. No safety checker is used: only
    the last stage's is calibrated.
    """
    count, seed = max(1, arguments.prompts // 3), arguments.seed
    asked, pairs = claims.claims(drawings, count, seed), claims.pair_prompts(drawings, count, seed)
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
    """Return the settings that `-i` gives ("NAME=VALUE") as a dict. Raises `InputError` for a name that is no setting
    of the evaluation, and for a value out of range.
    """
    values = parse_inputs(pairs)
    for name in values:
        if name not in SETTINGS:
            raise InputError("-i", f"{name} is no setting of the evaluation; allowed are {', '.join(SETTINGS)}")
    request = Request("settings", **values)
    request.resolve(defaults)
    return {name: getattr(request, name) for name in values}
