"""Filters drop what they are for and nothing else, and the report names it."""

import json
import os

import pytest
import torch
from PIL import Image

from jsd.train import filters
from jsd.train.filters import Sample, filter_shard, is_japanese

from .shards import good, picture, write


def sample(key="a", size=(64, 64), caption="猫の絵", colour="red", **about):
    raw = {"__key__": key, "png": picture(colour, size), "txt": caption.encode()}
    return Sample(raw | ({"json": json.dumps(about).encode()} if about else {}))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("猫の肖像画 油絵", True),
        ("ｻﾗﾘｰﾏﾝ", True),
        ("東京都庁", True),
        ("きらきら☆", True),
        ("iPhoneのケース、黒", True),
        ("北京大学图书馆 abc", False),
        ("a cat", False),
        ("고양이 그림", False),
        ("고양이 の 絵 です ね", False),
        ("кот", False),
        ("2022", False),
    ],
)
def test_japanese_is_told_by_its_letters(text, verdict):
    assert is_japanese(text) == verdict


@pytest.mark.parametrize(
    ("stays", "good", "bad"),
    [
        (filters.readable, {}, {"caption": " "}),
        (filters.min_side(64), {"size": (64, 90)}, {"size": (63, 900)}),
        (filters.max_aspect(2), {"size": (128, 64)}, {"size": (129, 64)}),
        (filters.language("ja"), {}, {"caption": "a cat"}),
        (filters.language("ja"), {"caption": "Shibuya", "LANGUAGE": "ja"}, {"caption": "猫の絵", "LANGUAGE": "zh"}),
        (filters.max_watermark(0.5), {"pwatermark": 0.5}, {"pwatermark": 0.6}),
        (filters.min_similarity(0.3), {"similarity": 0.3}, {"similarity": 0.29}),
    ],
)
def test_each_filter_keeps_the_good_and_drops_the_bad(stays, good, bad):
    assert stays([sample(**good), sample(**bad)]) == [True, False]


def test_what_nobody_knows_is_not_a_watermark():
    assert filters.max_watermark(0.5)([sample()]) == [True]


def test_a_score_or_a_language_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="similarity: x has none.*--clip"):
        filters.min_similarity(0.3)([sample("x")])
    with pytest.raises(ValueError, match="'fr': x has no LANGUAGE"):
        filters.language("fr")([sample("x")])


def test_a_model_may_score():
    score = lambda samples: [0.1 * len(s.caption) for s in samples]  # noqa: E731
    assert filters.min_similarity(0.35, score)([sample(caption="猫の絵です"), sample()]) == [True, False]


def test_of_duplicates_the_first_stays():
    tree = Image.linear_gradient("L")
    import io

    def drawn(key, image, caption):
        data = io.BytesIO()
        image.convert("RGB").save(data, "JPEG", quality=80 if key == "again" else 95)
        return Sample({"__key__": key, "jpg": data.getvalue(), "txt": caption.encode()})

    samples = [
        drawn("first", tree, "木"),
        drawn("again", tree.resize((200, 200)), "木"),
        drawn("other words", tree, "空"),
        drawn("other picture", tree.rotate(90), "木"),
    ]
    assert filters.no_duplicates(samples) == [True, False, True, True]


def test_the_report_names_what_each_filter_dropped():
    samples = [sample("a"), sample("b", caption=" "), sample("c", size=(8, 8)), sample("d")]
    kept, dropped = filter_shard(samples, {"readable": filters.readable, "min_side": filters.min_side(16)})
    assert [s.key for s in kept] == ["a", "d"]
    assert dropped == {"readable": ["b"], "min_side": ["c"]}


def test_the_command_writes_what_is_left_byte_for_byte_and_a_report(tmp_path, capsys):
    cat = {"png": picture(size=(64, 64)), "txt": "猫の絵", "json": {"pwatermark": 0.1}}
    samples = {"a": cat, "b": cat | {"txt": "犬の絵"}, "c": cat, "d": cat | {"txt": "a cat"}}
    write(tmp_path / "00000.tar", samples)
    arguments = [str(tmp_path / "00000.tar"), str(tmp_path / "out"), "--language", "ja", "--min-side", "32"]
    filters.main(arguments)
    kept, broken = filters.read_shard(str(tmp_path / "out" / "00000.tar"))
    assert not broken
    assert [(s.key, s.raw["png"], s.caption) for s in kept] == [
        ("a", cat["png"], "猫の絵"),
        ("b", cat["png"], "犬の絵"),
    ]
    assert kept[0].about == {"pwatermark": 0.1}
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["shards"]["00000.tar"]
    assert (report["samples"], report["kept"]) == (4, 2)
    assert report["dropped"] == {"readable": [], "language": ["d"], "min_side": [], "no_duplicates": ["c"]}
    assert "kept 2 of 4 samples" in capsys.readouterr().out
    written = (tmp_path / "out" / "00000.tar").stat().st_mtime_ns
    filters.main(arguments)  # what is done is not done again
    assert (tmp_path / "out" / "00000.tar").stat().st_mtime_ns == written
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_nothing_is_overwritten_or_mixed_up(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "00000.tar", {"x": {"png": picture(), "txt": name}})
    before = (tmp_path / "a" / "00000.tar").read_bytes()
    with pytest.raises(ValueError, match="holds the shards that are to be filtered"):
        filters.main([str(tmp_path / "a"), str(tmp_path / "a"), "--language", "ja"])
    assert (tmp_path / "a" / "00000.tar").read_bytes() == before
    with pytest.raises(ValueError, match="several shards are called 00000.tar"):
        filters.main([f"{tmp_path}/a/00000.tar::{tmp_path}/b/00000.tar", str(tmp_path / "out")])
    filters.main([str(tmp_path / "a"), str(tmp_path / "out")])
    with pytest.raises(ValueError, match="made with other filters"):
        filters.main([str(tmp_path / "a"), str(tmp_path / "out"), "--language", "ja"])


def test_a_truncated_shard_is_filtered_as_far_as_it_goes(tmp_path, capsys):
    url = good(tmp_path / "data", shards=1, each=6)[0]
    os.truncate(url, 9 * 1024 + 700)  # within the tenth of its twelve members
    filters.main([str(tmp_path / "data"), str(tmp_path / "out")])
    row = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["shards"]["00000.tar"]
    assert row["samples"] == 5
    assert "unreadable" in row["broken"]
    assert "1 shards could not be read to their end, 00000.tar first" in capsys.readouterr().out


def test_a_clip_like_model_scores(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**small, "vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(tmp_path)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({"[PAD]": 0, "<s>": 1, "</s>": 2, "[UNK]": 3, "猫": 4, "犬": 5}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    score = filters.ClipScore(tmp_path)
    values = score([sample(caption="猫"), sample(caption="犬"), sample(caption="猫", colour="blue")])
    assert len(set(values)) == 3
    assert all(-1 <= value <= 1 for value in values)
    least = sorted(values)[1]
    assert sum(filters.min_similarity(least, score)([sample(caption="猫"), sample(caption="犬")])) >= 1
