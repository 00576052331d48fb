"""The plain prompt of a scene, always the same."""

from embedded.scenes.scene import Scene
from embedded.scenes.words.english import NUMBERS, counted_en, with_article
from embedded.scenes.words.japanese import counted_ja
from embedded.scenes.words.language import LANGUAGES
from embedded.scenes.words.names import names_of
from embedded.scenes.words.settings import place_words


def prompt_for(scene: Scene, language: str = "ja") -> str:
    """The plain prompt: 猫, 青い背景の猫 油絵, 草原の犬, 猫の右の犬, 三匹の猫."""
    words_of = LANGUAGES[language]
    names = []
    for thing in scene.things:
        name = names_of(thing, scene, language)[0]
        colour = words_of.thing_colours[thing.colour][0] if thing.colour else ""
        if language == "ja":
            name = (f"{counted_ja(thing.count, thing.concept.counter)}の" if thing.count > 1 else "") + colour + name
        elif thing.count > 1:
            name = counted_en(NUMBERS[thing.count][0], colour and colour + " ", name, thing.concept)
        else:
            name = with_article(name, thing.concept, colour and colour + " ")
        names.append(name)
    sort = "noun" if len(names) == 1 else "nouns"
    if scene.relation not in (None, "beside") and language == "ja":
        sort = "loose"
    if len(names) == 3:
        words = words_of.three[0].format(a=names[0], b=names[1], c=names[2])
    elif len(names) == 2:
        forms = words_of.relations.get(scene.relation, words_of.two)
        words = forms[0].format(a=names[0], b=names[1])
    else:
        words = names[0]
    if scene.ground in words_of.places:
        place = place_words(scene, words_of)[0]
        if scene.weather:
            place = words_of.with_place[scene.weather][0].format(p=place)
        words = words_of.placed[sort][0].format(s=words, p=place)
    else:
        if scene.ground != "white":
            words = words_of.coloured[sort][0].format(s=words, c=words_of.colours[scene.ground][0])
        if scene.weather:
            words = words_of.weathers[scene.weather][sort][0].format(s=words)
    if scene.style != "plain":
        words = words_of.styled[sort][0].format(s=words, w=words_of.styles[scene.style].words[0])
    return words.replace(" a orange", " an orange")
