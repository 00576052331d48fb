"""Rows are drawn together. Each becomes pictures, or says why not."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pa = pytest.importorskip("pyarrow", reason="pyarrow is missing: script/bootstrap bulk")

from PIL import Image
from safetensors.torch import save_file

from bulk.drawing import Drawer, draw, table_of
from bulk.rows import make_request, model_digest
from jsd import adapters, sampling
from jsd.model import Components, load
from jsd.request import Request
from tests.adapters import adapter, kohya
from tests.fakes import flip_last_bit, psnr


def ask(**inputs: object) -> str:
    return json.dumps({"prompt": "猫", "seed": 1, **inputs})


def sent(file: str | Path) -> tuple[str, str]:
    """A file as a row sends it: its path and its hash."""
    return str(file), hashlib.sha256(Path(file).read_bytes()).hexdigest()


def drawn(components: Components, batch: list[tuple[int, str, str]]) -> list[dict]:
    return table_of(draw(components, batch), components.name).to_pylist()


def pixels(row: dict) -> bytes:
    return Image.open(io.BytesIO(row["data"])).tobytes()


def test_each_row_has_the_pictures_of_its_seed(components):
    found = drawn(components, [(1, "a", ask()), (2, "b", ask(num_outputs=2, seed=5, output_format="webp"))])
    assert [(f["row"], f["picture"], f["seed"], f["status"]) for f in found] == [
        (1, 0, 1, "drawn"),
        (2, 0, 5, "drawn"),
        (2, 1, 6, "drawn"),
    ]
    assert (found[0]["digest"], found[0]["model"], found[0]["width"], found[2]["suffix"]) == ("a", "tiny", 64, "webp")
    alone = sampling.generate(components, Request("猫", seed=1)).images[0]
    assert psnr(Image.open(io.BytesIO(found[0]["data"])), alone) > 50
    assert json.loads(found[0]["metadata"])["seed"] == 1


def test_a_row_that_fails_says_why_and_the_others_are_drawn(spied):
    spied.unet.broken = lambda x: x.shape[-1] == 5
    batch = [(1, "a", ask(width=65)), (2, "b", ask()), (3, "c", ask(width=80)), (4, "d", ask(image=sent(__file__)))]
    found = {f["row"]: f for f in drawn(spied, batch)}
    assert (found[1]["status"], found[1]["input"]) == ("failed", "width")
    assert found[1]["reason"].startswith("65 was given; this model draws multiples of 16")
    assert found[2]["status"] == "drawn"
    assert found[3]["reason"] == "RuntimeError: broken on purpose"
    assert found[4]["input"] == "image"
    assert Path(__file__).name in found[4]["reason"]
    assert "not a png, jpeg or webp file" in found[4]["reason"]


def test_each_row_has_its_own_adapter_or_none(tiny_folder, tmp_path):
    loaded = load(tiny_folder)
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, file in enumerate(files):
        file.write_bytes(adapter(loaded, number))
    tensors = kohya(loaded)
    save_file({key.replace("down_blocks_0", "down_blocks_7"): tensors[key] for key in tensors}, tmp_path / "other")
    next(iter(tensors.values()))[0] = torch.nan
    save_file(tensors, tmp_path / "nan")
    asked = [ask(lora=sent(file), lora_scale=0.5) for file in (*files, tmp_path / "other", tmp_path / "nan")]
    batch = [(number, "", inputs) for number, inputs in enumerate([*asked, ask()], 1)]
    found = {f["row"]: f for f in drawn(loaded, batch)}
    alone = {n: sampling.generate(loaded, make_request(inputs)).images[0] for n, _, inputs in batch if n not in (4, 5)}
    for number, image in alone.items():
        assert psnr(Image.open(io.BytesIO(found[number]["data"])), image) > 50
    pictures = {found[number]["data"] for number in alone}
    assert len(pictures) == 4
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files]
    assert [found[number]["lora"] for number in (1, 2, 3, 6)] == [*hashes, None]
    assert [found[number]["lora_scale"] for number in (1, 6)] == [0.5, 1]
    assert [(found[number]["status"], found[number]["input"]) for number in (4, 5)] == [("failed", "lora")] * 2
    assert "has no place in this model" in found[4]["reason"]
    assert "not finite" in found[5]["reason"]


def test_adapters_that_memory_has_no_room_for_together_follow_each_other(tiny_folder, tmp_path, monkeypatch):
    loaded = load(tiny_folder)
    monkeypatch.setattr(adapters, "MOST_BYTES", loaded.adapters.read(adapter(loaded)).size * 7 // 2)
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for number, file in enumerate(files):
        file.write_bytes(adapter(loaded, number))
    batch = [(number, "", ask(lora=sent(file))) for number, file in enumerate(files)]
    assert [row["status"] for row in drawn(loaded, batch)] == ["drawn"] * 8


def test_a_batch_gives_the_same_bits_whatever_else_the_actor_draws(tiny_folder, components, tmp_path):
    """Rows of other sizes, numbers of steps and adapters, and two batches at a time, as an actor has them."""
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for number, file in enumerate(files):
        file.write_bytes(adapter(components, number))
    kinds = [{}, {"width": 80}, {"num_inference_steps": 3}, *({"lora": sent(file)} for file in files)]
    batches = [[(n, "", ask(seed=n, **kinds[n % 5])) for n in range(first, first + 7)] for first in (0, 7)]
    environment = {"JSD_WEIGHTS": str(tiny_folder), "JSD_DEVICE": "cpu", "JSD_MAX_BATCH": "8"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        drawer = Drawer(environment, model_digest())
    tables = [pa.table({"rows": [json.dumps(batch)]}) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(drawer, tables))
    for table, again in zip(together, reversed([drawer(table) for table in reversed(tables)]), strict=True):
        assert [pixels(row) for row in table.to_pylist()] == [pixels(row) for row in again.to_pylist()]


def test_the_settings_of_the_machine_that_draws_do_not_count(tiny_folder, monkeypatch):
    environment = {"JSD_WEIGHTS": str(tiny_folder), "JSD_DEVICE": "cpu"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("JSD_SAFETY_CHECKER", raising=False)
    digest = model_digest()
    monkeypatch.setenv("JSD_SAFETY_CHECKER", "off")
    drawer = Drawer(environment, digest)
    assert drawer.failure == {}
    assert drawer._components.safety_checker is not None


def test_a_flagged_picture_is_a_row_that_says_so(components):
    checker = copy.deepcopy(components.safety_checker)
    checker.concept_embeds_weights.data.fill_(-2.0)
    found = drawn(replace(components, safety_checker=checker), [(1, "a", ask(num_outputs=2))])
    assert [(f["picture"], f["seed"], f["status"], f["data"], f["width"]) for f in found] == [
        (0, 1, "flagged", None, 64),
        (1, 2, "flagged", None, 64),
    ]


def test_an_actor_without_its_model_says_so_for_every_batch(tiny_copy, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_copy))
    digest = model_digest()
    for change, reason in (("another", "has another model"), (None, "altered (its sha256 is not the one in")):
        if change is None:
            flip_last_bit(tiny_copy / "unet" / "diffusion_pytorch_model.safetensors")
        drawer = Drawer({"JSD_WEIGHTS": str(tiny_copy)}, change or digest)
        found = drawer(pa.table({"rows": [json.dumps([(1, "a", ask())])]})).to_pylist()
        assert [row["status"] for row in found] == ["no model"]
        assert reason in found[0]["reason"]
