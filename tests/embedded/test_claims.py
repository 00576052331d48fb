"""The table of claims asks every category in the right language, and counts correctly."""

from collections import Counter

from PIL import Image

from embedded import claims
from embedded.claims import CATEGORIES, WORDS
from embedded.judge import NOTHING, Sight, Verdict
from embedded.prompts import Task, plain
from embedded.scenes import load_concepts
from jsd.tokenizer import Tokenizer
from tests.embedded.shapes import CONCEPTS

RED, GREEN = (255, 0, 0), (0, 255, 0)
SEEN = {RED: "circle", GREEN: "ring"}


def judge(images):
    """See a red picture as a circle and a green one as a ring."""
    found = [image and SEEN[image.getpixel((0, 0))] for image in images]
    return [NOTHING if name is None else Verdict((Sight(name, "red", 0.5, 0.5),), "plain", "white") for name in found]


def test_every_category_is_asked_and_every_listed_word_names_a_concept():
    concepts = load_concepts()
    asked = claims.sample_claims(concepts, 5, seed=0)
    count = Counter(task.group for task in asked)
    assert set(count) == set(CATEGORIES)
    assert {category: count[category] for category in WORDS} == {c: len(words) for c, words in WORDS.items()}
    assert min(len(words) for words in WORDS.values()) >= 30
    assert {count[category] for category in CATEGORIES if category not in WORDS} == {5}
    english = {task.ja: task.en for task in asked}
    assert (english["ワンワン"], english["サラリーマン"]) == ("a dog", "a salaryman")
    assert claims.sample_claims(concepts, 5, seed=0) == asked != claims.sample_claims(concepts, 5, seed=1)


def test_the_table_counts_right_pictures_per_column():
    asked = [
        Task("noun", "丸", "a circle", plain(CONCEPTS["circle"])),
        Task("noun", "輪", "a ring", plain(CONCEPTS["ring"])),
        Task("japanglish", "リング", "a ring", plain(CONCEPTS["ring"])),
    ]
    red, green = (Image.new("RGB", (40, 40), colour) for colour in (RED, GREEN))
    columns = {"ja": [red, red, None], "en": [red, green, green]}
    report = claims.report(columns, asked, judge)
    assert report["claims"]["noun"] == {"ja": 0.5, "en": 1.0}
    assert report["claims"]["japanglish"] == {"ja": 0.0, "en": 1.0}
    assert report["claims"]["place"] == {"ja": None, "en": None}
    assert report["claims_prompts"] == {**dict.fromkeys(CATEGORIES, 0), "noun": 2, "japanglish": 1}
    text = claims.lines(report).splitlines()
    assert next(line for line in text if line.startswith("noun")).split() == ["noun", "2", "50.0%", "100.0%"]
    picture, prompts = claims.contact_sheet(columns, asked, cell=40)
    assert prompts == ["リング", "丸", "輪"]
    assert [picture.getpixel((40 * i + 5, 5)) for i in range(3)] == [(128, 128, 128), RED, RED]
    assert [picture.getpixel((40 * i + 5, 45)) for i in range(3)] == [GREEN, RED, GREEN]


def test_tokens_are_counted_with_both_tokenizers(tiny_folder):
    own = Tokenizer.from_folder(tiny_folder / "tokenizer")
    asked = [Task("noun", "猫の肖像画 油絵", "", plain(CONCEPTS["ring"]))]
    assert claims.tokens(asked, own, own) == dict.fromkeys(("japanese", "english"), own("猫の肖像画 油絵").used)
