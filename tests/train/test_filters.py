"""Each filter drops the samples it is for, and no others."""

import io
import json

import pytest
import torch
from PIL import Image

from jsd.errors import TrainingError
from jsd.train import filters
from jsd.train.filters import Sample, filter_shard, is_japanese
from tests.train.shards import picture


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
def test_japanese_is_recognised_by_its_letters(text, verdict):
    assert is_japanese(text) == verdict


@pytest.mark.parametrize(
    ("keeps", "good", "bad"),
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
def test_each_filter_keeps_good_samples_and_drops_bad_ones(keeps, good, bad):
    assert keeps([sample(**good), sample(**bad)]) == [True, False]


def test_a_picture_without_pwatermark_is_kept():
    assert filters.max_watermark(0.5)([sample()]) == [True]


def test_a_missing_score_or_language_is_an_error():
    with pytest.raises(TrainingError, match="similarity: x has none.*--clip"):
        filters.min_similarity(0.3)([sample("x")])
    with pytest.raises(TrainingError, match="'fr': x has no LANGUAGE"):
        filters.language("fr")([sample("x")])


def test_a_model_can_score():
    score = lambda samples: [0.1 * len(s.caption) for s in samples]  # noqa: E731
    assert filters.min_similarity(0.35, score)([sample(caption="猫の絵です"), sample()]) == [True, False]


def test_the_first_of_duplicates_is_kept():
    tree = Image.linear_gradient("L")

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


def test_dropped_samples_are_listed_per_filter():
    samples = [sample("a"), sample("b", caption=" "), sample("c", size=(8, 8)), sample("d")]
    kept, dropped = filter_shard(samples, {"readable": filters.readable, "min_side": filters.min_side(16)})
    assert [s.key for s in kept] == ["a", "d"]
    assert dropped == {"readable": ["b"], "min_side": ["c"]}


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
    cat, dog, _ = values
    middle = (cat + dog) / 2
    kept = filters.min_similarity(middle, score)([sample(caption="猫"), sample(caption="犬")])
    assert kept == [cat > middle, dog > middle]
