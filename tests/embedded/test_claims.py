"""The table of claims asks every category in the right language, and counts correctly."""

from collections import Counter

from PIL import Image

from embedded import claims
from embedded.claims import CATEGORIES, Claim, PairPrompt
from embedded.drawings import Drawing, load_concepts
from embedded.judge import Verdict
from embedded.pictures import held_out, held_out_pair
from jsd.tokenizer import Tokenizer

COLOURS = {"circle": (255, 0, 0), "ring": (0, 255, 0)}
DRAWINGS = [Drawing(concept, "noto", concept.emoji[0], False, concept.id) for concept in load_concepts()]


def judge(images):
    """Recognise a concept by its colour, in the plain style. Grey is an oil painting of a ring."""
    known = {colour: Verdict(name, "plain") for name, colour in COLOURS.items()} | {(9, 9, 9): Verdict("ring", "oil")}
    return [known[image.getpixel((2, 2))] for image in images]


def picture(left, right=None):
    image = Image.new("RGB", (40, 40), left)
    image.paste(right or left, (20, 0, 40, 40))
    return image


def test_every_category_is_asked_and_every_listed_word_names_a_concept():
    asked = claims.claims(DRAWINGS, 50, seed=0)
    count = Counter(claim.category for claim in asked)
    assert set(count) == set(CATEGORIES)
    assert count["noun"] == count["held_out"] == 50
    assert count["japanglish"] == len(claims.JAPANGLISH) >= 30
    assert count["onomatopoeia"] == len(claims.ONOMATOPOEIA) >= 30
    assert count["proper_noun"] == len(claims.PROPER_NOUNS) >= 25
    assert count["japanese_style"] == len(claims.JAPANESE_STYLE) >= 30
    assert all(held_out(claim.concept, claim.style) for claim in asked if claim.category == "held_out")
    assert Claim("onomatopoeia", "ワンワン", "dog", "dog") in asked
    assert Claim("japanglish", "サラリーマン", "salaryman", "salaryman") in asked
    assert claims.claims(DRAWINGS, 50, seed=0) == asked != claims.claims(DRAWINGS, 50, seed=1)


def test_pair_prompts_name_concepts_that_were_never_shown_together():
    pairs = claims.pair_prompts(DRAWINGS, 40, seed=0)
    assert len(pairs) == 40
    assert all(held_out_pair(*pair.concepts) for pair in pairs)
    assert all("と" in pair.ja and " and " in pair.en for pair in pairs)


def test_the_table_counts_right_pictures_per_column():
    asked = [
        Claim("noun", "丸", "circle", "circle"),
        Claim("noun", "輪", "ring", "ring"),
        Claim("held_out", "輪 油絵", "ring, oil painting", "ring", "oil"),
    ]
    pairs = [
        PairPrompt("丸と輪", "circle and ring", ("circle", "ring")),
        PairPrompt("輪と丸", "ring and circle", ("ring", "circle")),
    ]
    red, green = COLOURS.values()
    drawn = {
        "丸": picture(red),
        "輪": picture(red),  # wrong
        "輪 油絵": picture((9, 9, 9)),
        "丸と輪": picture(red, green),
        "輪と丸": picture(red),  # the ring is missing
        "circle": picture(red),
        "ring": picture(green),
        "ring, oil painting": picture(green),  # the style is wrong
        "circle and ring": picture(green, red),  # the order does not matter
        "ring and circle": None,
    }
    columns = {
        name: claims.answer(name, lambda prompts: [drawn[prompt] for prompt in prompts], asked, pairs)
        for name in ("ja", "en")
    }
    report = claims.table(columns, asked, pairs, judge)
    assert report["claims"]["noun"] == {"ja": 0.5, "en": 1.0}
    assert report["claims"]["held_out"] == {"ja": 1.0, "en": 1.0}
    assert report["claims"]["japanglish"] == {"ja": None, "en": None}
    assert report["claims_style"] == {"ja": 1.0, "en": 0.0}
    assert report["two"] == {"ja": 0.5, "en": 0.5}
    assert report["claims_prompts"] == {**dict.fromkeys(CATEGORIES, 0), "noun": 2, "held_out": 1, "two": 2}
    text = claims.lines(report).splitlines()
    assert text[1].split() == ["noun", "2", "50.0%", "100.0%"]
    assert text[-1].split() == ["two", "things,", "both", "2", "50.0%", "50.0%"]
    picture_of_all, prompts = claims.contact_sheet(columns, asked, pairs, cell=40)
    assert prompts == ["丸", "輪", "輪 油絵", "丸と輪", "輪と丸"]
    assert picture_of_all.size == (5 * 40, 2 * 40)
    assert [picture_of_all.getpixel((40 * i + 5, 45)) for i in range(5)] == [red, green, green, green, (128, 128, 128)]


def test_tokens_are_counted_with_both_tokenizers(tiny_folder):
    own = Tokenizer.from_folder(tiny_folder / "tokenizer")
    asked = [Claim("noun", "猫の肖像画 油絵", "", "")]
    assert claims.tokens(asked, own, own) == dict.fromkeys(("japanese", "english"), own("猫の肖像画 油絵").used)
