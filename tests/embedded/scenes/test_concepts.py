"""The table of concepts: no name stands for two, and the columns hold what the captions can use."""

import re
import unicodedata
from collections import Counter, defaultdict

import pytest

from embedded.scenes.concepts import COLUMNS, CONCEPTS_FILE, load_concepts
from jsd.errors import TrainingError

KINDS = """
animal bird sea insect food drink fruit vegetable plant flower sky weather place building vehicle person fantasy face
hand object tool clothing music sport game symbol flag japan
"""
COUNTERS = """
- 匹 羽 頭 人 台 本 枚 個 つ 冊 軒 隻 機 輪 杯 足 着 皿 貫 膳 丁 張 房 束 鉢 株 粒
玉 滴 錠 部 通 巻 袋 脚 基 棟 城 両 艘 席 体 組 瓶 缶 発
"""
CONCEPTS = load_concepts()


def plain(name: str) -> str:
    """What two spellings of one name have in common: width, case, kana, blanks and the middle dot do not count."""
    name = unicodedata.normalize("NFKC", name).casefold()
    name = "".join(chr(ord(c) - 0x60) if "ァ" <= c <= "ヶ" else c for c in name)
    return re.sub(r"[\s・]", "", name)


def test_there_are_many_concepts_each_with_its_own_id():
    header, *rows = CONCEPTS_FILE.read_text("utf-8").splitlines()
    assert header.split("\t") == list(COLUMNS)
    assert len(CONCEPTS) == len(rows) >= 900
    assert [ident for ident in CONCEPTS if not re.fullmatch("[a-z][a-z0-9_]*", ident)] == []


def test_no_cell_is_empty_or_has_blanks_around_it():
    cells = [cell for row in CONCEPTS_FILE.read_text("utf-8").splitlines() for cell in re.split(r"[\t|]", row)]
    assert [cell for cell in cells if not cell or cell != cell.strip()] == []


def test_no_name_stands_for_two_concepts():
    owners = defaultdict(set)
    for concept in CONCEPTS.values():
        for name in concept.ja + concept.en:
            owners[plain(name)].add(concept.id)
    assert {name: ids for name, ids in owners.items() if len(ids) > 1} == {}


def test_no_emoji_stands_for_two_concepts_or_has_a_colour_of_skin():
    emoji = Counter(one.replace("\ufe0f", "") for concept in CONCEPTS.values() for one in concept.emoji)
    assert [one for one, times in emoji.items() if times > 1] == []
    assert [one for one in emoji if re.search("[\U0001f3fb-\U0001f3ff\u20e3]", one)] == []


@pytest.mark.parametrize("language", ["ja", "en"])
def test_no_name_is_there_twice(language):
    for concept in CONCEPTS.values():
        names = [unicodedata.normalize("NFKC", name).casefold() for name in getattr(concept, language)]
        assert len(set(names)) == len(names), concept.id


def test_names_can_be_read():
    for concept in CONCEPTS.values():
        for name in concept.ja:
            assert re.search(r"\w", name), concept.id
            assert not re.fullmatch("[ぁ-ゖァ-ヶ]", name), f"{concept.id}: {name} is one kana"
        for name in concept.en:
            assert name.isascii() or name == "piñata", concept.id
            assert name == name.lower(), concept.id


def test_kinds_and_counters_are_known():
    for concept in CONCEPTS.values():
        assert concept.kind in KINDS.split(), concept.id
        assert concept.counter in COUNTERS.split(), concept.id
        assert concept.counter == "-" or concept.kind not in ("face", "flag"), f"{concept.id} is not counted"


def test_marked_names_are_names():
    for concept in CONCEPTS.values():
        assert concept.alone <= {*concept.ja, *concept.en}, concept.id
        assert {name.removeprefix("the ") for name in concept.bare} <= {*concept.en}, concept.id


def test_japanese_things_are_there():
    names = {name for concept in CONCEPTS.values() for name in concept.ja}
    wanted = """
    富士山 東京タワー 城 鳥居 桜 鯉のぼり 門松 ひな祭り 風鈴 鬼 天狗 寿司 おにぎり 団子 おでん ラーメン
    温泉 提灯 着物 新幹線 サラリーマン 猫 ねこ ネコ にゃんこ
    """
    assert set(wanted.split()) - names == set()


def test_a_row_with_too_few_cells_is_refused_with_its_line(tmp_path):
    table = tmp_path / "concepts.tsv"
    table.write_text("\t".join(COLUMNS) + "\ncat\t🐱\t猫\tcat\n", "utf-8")
    with pytest.raises(TrainingError, match="line 2: 4 cells"):
        load_concepts(table)
