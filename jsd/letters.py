"""What is alike in Japanese spelling: kana of both kinds, old forms of kanji, long vowels, okurigana."""

from __future__ import annotations

import re
import unicodedata

# Each kanji as it is written today, and its old form. NFKC knows some more.
KANJI = (
    "亜亞悪惡圧壓囲圍医醫為爲壱壹隠隱栄榮営營衛衞駅驛円圓塩鹽縁緣艶艷応應欧歐殴毆桜櫻奥奧横橫温溫穏穩仮假価價画畫会會絵繪壊壞懐懷概槪"
    "拡擴殻殼覚覺学學岳嶽楽樂渇渴缶罐巻卷陥陷勧勸寛寬関關歓歡観觀顔顏気氣帰歸偽僞戯戲犠犧旧舊拠據挙擧虚虛峡峽挟挾狭狹郷鄕暁曉区區駆驅"
    "勲勳薫薰径徑恵惠渓溪経經蛍螢軽輕継繼鶏鷄芸藝撃擊欠缺県縣倹儉剣劍険險圏圈検檢献獻権權顕顯験驗厳嚴広廣効效恒恆黄黃鉱鑛号號国國黒黑"
    "砕碎済濟斎齋剤劑雑雜参參桟棧蚕蠶惨慘賛贊残殘糸絲歯齒児兒辞辭湿濕実實写寫釈釋寿壽収收従從渋澁獣獸縦縱粛肅処處叙敍将將称稱焼燒証證"
    "奨奬条條状狀乗乘浄淨剰剩畳疊縄繩壌壤嬢孃譲讓醸釀触觸嘱囑真眞寝寢慎愼尽盡図圖粋粹酔醉穂穗随隨髄髓枢樞数數瀬瀨声聲斉齊静靜窃竊摂攝"
    "専專浅淺戦戰践踐銭錢潜潛繊纖禅禪双雙壮壯争爭荘莊捜搜挿插巣巢曽曾痩瘦装裝総總騒騷増增蔵藏臓臟即卽属屬続續堕墮対對体體帯帶滞滯台臺"
    "滝瀧択擇沢澤担擔単單胆膽団團断斷弾彈遅遲痴癡虫蟲昼晝鋳鑄庁廳徴徵聴聽勅敕鎮鎭逓遞鉄鐵点點転轉伝傳灯燈当當党黨盗盜稲稻闘鬪徳德独獨"
    "読讀届屆弐貳悩惱脳腦覇霸拝拜廃廢売賣麦麥発發髪髮抜拔晩晚蛮蠻秘祕浜濱瓶甁払拂仏佛併倂並竝塀塀餅餠辺邊辺邉変變弁辨弁瓣弁辯歩步宝寶"
    "豊豐褒襃翻飜毎每万萬満滿麺麵黙默弥彌訳譯薬藥与與予豫余餘誉譽揺搖様樣謡謠来來頼賴乱亂覧覽竜龍両兩猟獵緑綠涙淚塁壘礼禮励勵戻戾霊靈"
    "齢齡暦曆歴歷恋戀炉爐労勞楼樓録錄湾灣槙槇遥遙尭堯桧檜瑶瑤巌巖亘亙鴎鷗頬頰蝋蠟掴摑填塡剥剝嘘噓噛嚙莱萊繋繫蝉蟬躯軀醤醬掻搔屏屛姫姬祷禱"
    "涛濤砺礪篭籠芦蘆麩麸繍繡焔焰侠俠呑吞枡桝鹸鹼麹麴箪簞薮藪蝿蠅鯵鰺亀龜兎兔猫貓島嶋島嶌峰峯杯盃煙烟館舘涼凉群羣崎﨑高髙富冨剣劔剣劒鶏雞"
)
OLD = dict(zip(KANJI[1::2], KANJI[::2], strict=True))
OLD |= {"ゐ": "い", "ゑ": "え", "ヰ": "イ", "ヱ": "エ"}
ALIKE = OLD | dict(zip("づぢ一二三四五六七八九", "ずじ123456789", strict=True))
VOWELS = (
    "あかさたなはまやらわがざだばぱぁゃゎ",
    "いきしちにひみりぎじぢびぴぃ",
    "うくすつぬふむゆるぐずづぶぷぅゅゔ",
    "えけせてねへめれげぜでべぺぇ",
    "おこそとのほもよろをごぞどぼぽぉょ",
)
ROWS = {c: row[0] for row in VOWELS for c in row}  # each kana's vowel
# Kana between kanji or behind them that people write or leave out: the ends of verbs as parts of nouns.
OKURIGANA = re.compile(
    "(?<=[々一-鿿])(?:[あ-つぬねひふほ-もゆ-ん]?[きぎしじちびみりけげせねべめれえ]|(?<=[買払使合])い)(?=[々一-鿿1-9]|$)"
)
V_SOUNDS = re.compile("ゔ([ぁぃぇぉ])?|う([ぃぇぉ])")  # ヴァイオリン, ウィスキー
FLAT = re.compile("(?<=[えけせてねへめれげぜでべぺぇ])い|(?<=[おこそとのほもよろごぞどぼぽょぉ])う")


def key(word: str) -> str:
    """Return a form in which the spellings of a word are alike."""
    return short(fold(unicodedata.normalize("NFKC", word)))


def fold(text: str) -> str:
    """Return a text in NFKC with its characters spelled alike, each for itself: hiragana, small letters, today's kanji,
    digits, the vowel for ー.
    """
    folded: list[str] = []
    for c in text:
        c = chr(ord(c) - 0x60) if "ァ" <= c <= "ヴ" else c
        last = folded[-1] if folded else ""
        if c == "ー" or (c in "ぁぃぅぇぉ" and ROWS[c] == ROWS.get(last)):  # らーめん, らぁめん
            c = ROWS.get(last, c)
        else:
            c = last or c if c == "々" else ALIKE.get(c, c)
        folded.append(c.lower() if len(c.lower()) == 1 else c)
    return "".join(folded)


def short(folded: str) -> str:
    """Return a folded word without what may be left out."""
    if "ゔ" in folded or "う" in folded:
        folded = V_SOUNDS.sub(_v_sound, folded)
    short = OKURIGANA.sub("", folded)
    return short if len(short) > 1 else folded


def _v_sound(match: re.Match) -> str:
    if match[2]:
        return "う" + {"ぃ": "い", "ぇ": "え", "ぉ": "お"}[match[2]]
    return {"ぁ": "ば", "ぃ": "び", "ぇ": "べ", "ぉ": "ぼ", None: "ぶ"}[match[1]]


def more_keys(name: str) -> list[str]:
    """Return further keys of a name that ends in katakana: コンピュータ of コンピューター and the reverse."""
    if re.search("[ァ-ヺー]{3}ー$", name):
        return [key(name[:-1])]
    return [key(name + "ー")] if re.search("[ァ-ヺー]{3}$", name) and ROWS.get(key(name)[-1]) == "あ" else []


def flat(own: str) -> str:
    """Return a key with all long vowels alike: せんせい and せんせえ, こうひい and こおひい."""
    return FLAT.sub(lambda match: "え" if match[0] == "い" else "お", own)
