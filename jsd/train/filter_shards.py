"""Copy the captioned pictures worth training on to new webdataset shards, and report what each filter dropped.

    python -m jsd train filter SHARDS FOLDER --language ja --min-side 256 --min-similarity 0.28 --clip FOLDER

The filters are in `jsd.train.filters`.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import webdataset
from PIL import Image
from tqdm import tqdm

from jsd.atomic import atomic_file, write_text
from jsd.errors import InputError, TrainingError, shown
from jsd.language import Text, english
from jsd.train import filters
from jsd.train.filters import ClipScore, Filter, Sample, filter_shard
from jsd.train.options import check_folder, first_line, number, read_record, whole
from jsd.train.shards import Skipped, find_shards, raw_samples

REPORT = "report.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = Text("Filter webdataset shards before training.")
    add = parser.add_argument
    add("shards", help="a folder of *.tar, or a pattern such as data/{00000..00099}.tar")
    add("folder", type=Path, help=Text("where the filtered shards and {} are written", REPORT))
    add("--min-side", type=whole(0), metavar="PIXELS", help="drop pictures whose shorter side is smaller")
    add(
        "--max-aspect",
        type=number(1),
        metavar="RATIO",
        help="drop pictures whose longer side is more than RATIO x shorter",
    )
    add("--language", metavar="CODE", help="keep only captions in this language, e.g. ja")
    add(
        "--max-watermark",
        type=number(0, 1),
        metavar="CHANCE",
        help="drop pictures with a higher pwatermark (0 to 1) in the .json",
    )
    add("--min-similarity", type=number(), metavar="COSINE", help="drop pairs with a lower score")
    add("--clip", metavar="FOLDER", help="score with this CLIP-like model; default: similarity in the .json")
    add("--device", default="cpu", help="of the CLIP-like model, e.g. cuda (default: %(default)s)")
    add("--keep-duplicates", action="store_true", help="keep pairs that look alike and read alike")


def run(arguments: argparse.Namespace) -> None:
    """Write filtered copies of all shards, and a report, into a folder. A shard that is already there is skipped.

    Raises `TrainingError` if a shard would be overwritten, or if the folder was made with other filters, and
    `InputError` for a wrong option.
    """
    check_folder("folder", arguments.folder)
    chosen = _chosen_filters(arguments)
    urls = find_shards(arguments.shards)
    _check_names(urls, arguments.shards, arguments.folder)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / REPORT
    settings = {name: value for name, value in vars(arguments).items() if name not in ("shards", "folder", "run")}
    report = read_record(file, "settings", "shards") if file.exists() else {"settings": settings, "shards": {}}
    if report["settings"] != settings:
        raise TrainingError(
            "{}: made with other filters ({}); remove the folder or use another", file, report["settings"]
        )
    rows = report["shards"]
    for url in tqdm(urls, Text("shards")):
        target = arguments.folder / Path(url).name
        if target.exists() and target.name in rows:
            continue
        samples, broken = read_shard(url)
        kept, dropped = filter_shard(samples, chosen)
        write_shard(kept, target)
        reasons = Counter(filter(None, map(filters.defect, samples)))
        row = {"samples": len(samples), "kept": len(kept), "broken": broken, "dropped": dropped, "unreadable": reasons}
        rows[target.name] = row
        write_text(file, json.dumps(report, ensure_ascii=False, indent=1))
    _print_summary(rows, chosen, file)


def read_shard(url: str) -> tuple[list[Sample], str]:
    """Return a shard's samples, and the reason why reading stopped before its end ("" if all of it was read)."""
    skipped: list[Skipped] = []
    return [Sample(raw) for raw in raw_samples(url, skipped)], english(skipped[0].reason) if skipped else ""


def write_shard(samples: Sequence[Sample], file: Path) -> None:
    """Write samples to a webdataset shard (a tar file). The bytes of their pictures and captions stay the same."""
    with atomic_file(file) as part, webdataset.TarWriter(str(part), encoder=False) as out:
        for sample in samples:
            out.write({k: v for k, v in sample.raw.items() if k == "__key__" or not k.startswith("__")})


def _chosen_filters(arguments: argparse.Namespace) -> dict[str, Filter]:
    """Return the filters that the command line chooses, by name, in the order in which they are applied."""
    chosen: dict[str, Filter] = {"readable": filters.readable}
    for name in ("language", "max_watermark", "min_side", "max_aspect"):
        if getattr(arguments, name) is not None:
            chosen[name] = getattr(filters, name)(getattr(arguments, name))
    if not arguments.keep_duplicates:
        chosen["no_duplicates"] = filters.no_duplicates
    if arguments.clip and arguments.min_similarity is None:
        raise InputError("--clip", "given without --min-similarity; give the least score that is kept, too")
    if arguments.min_similarity is not None:
        score = _clip_score(arguments.clip, arguments.device) if arguments.clip else None
        chosen["min_similarity"] = filters.min_similarity(arguments.min_similarity, score)
    return chosen


def _clip_score(folder: str, device: str) -> ClipScore:
    """Load the model in a folder onto a device, and try it on one picture. Raises `InputError` if it can't score."""
    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise InputError(
            "--device", "{} can't be used ({}); try cpu or cuda", shown(device), first_line(error)
        ) from error
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    try:
        score = ClipScore(folder, device)
        score([Sample({"__key__": "trial", "png": picture.getvalue(), "txt": b"cat"})])
    except Exception as error:
        raise InputError(
            "--clip",
            "{} can't score pictures ({}); a folder with a CLIP-like transformers model, its tokenizer and its image "
            "processor is wanted",
            shown(folder),
            first_line(error),
        ) from error
    return score


def _check_names(urls: Sequence[str], pattern: str, folder: Path) -> None:
    """Raise `TrainingError` if two shards have the same file name, or if one of them lies in `folder` itself."""
    names = [Path(url).name for url in urls]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise TrainingError("{}: several shards are called {}; filter them into separate folders", pattern, twice)
    for url in urls:
        if Path(url).exists() and Path(url).resolve() == (folder / Path(url).name).resolve():
            raise TrainingError("{}: holds the shards that are to be filtered; use another folder", folder)


def _print_summary(rows: dict[str, dict[str, Any]], names: Sequence[str], file: Path) -> None:
    for name in names:
        print(Text("{}: dropped {}", name, sum(len(row["dropped"].get(name, ())) for row in rows.values())))
    for reason, count in sum((Counter(row.get("unreadable", {})) for row in rows.values()), Counter()).items():
        print(Text("  not readable: {} x {}", count, Text(reason)))
    broken = [name for name, row in rows.items() if row["broken"]]
    if broken:
        print(Text("{} shards could not be read to their end, {} first", len(broken), broken[0]))
    total, kept = (sum(row[name] for row in rows.values()) for name in ("samples", "kept"))
    print(Text("kept {} of {} samples; {} names the others", kept, total, file))
