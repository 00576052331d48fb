"""How often each sort of scene, style, kind and place is drawn."""

SORTS = {"one": 37, "place": 22, "coloured": 6, "counted": 7, "two": 17, "two_coloured": 6, "three": 5}
THINGS = {"two": 2, "two_coloured": 2, "three": 3}  # of other sorts one
COLOURED = frozenset({"coloured", "two_coloured"})  # sorts whose things have colours
# Of 1, how often each sort stands in a place.
IN_PLACE = {"one": 0, "place": 1, "coloured": 0.25, "counted": 0.3, "two": 0.34, "two_coloured": 0.34, "three": 0.34}


def _table(text: str) -> dict[str, float]:
    """Names and numbers in turn."""
    words = text.split()
    return dict(zip(words[::2], map(float, words[1::2]), strict=True))


# plain is 45 in 100 once the held-out scenes are left away.
STYLE_WEIGHTS = _table(
    "plain 39.5 oil 5 watercolour 5 pencil 4 pixel 5 monochrome 3 ukiyoe 4.5 sumie 4 kirie 3 pastel 3 crayon 3 sepia "
    "2.5 neon 3 mosaic 3 embroidery 2.5 manga 2.5 chalk 2"
)
KIND_WEIGHTS = _table(  # of things alone; others 1
    "japan 2.5 animal 1.7 bird 1.3 sea 1.3 food 1.4 fruit 1.2 flower 1.7 building 1.3 vehicle 1.2 fantasy 1.3 "
    "symbol 0.25 flag 0.5 hand 0.35 face 0.5 tool 0.8 clothing 0.8"
)
CARD_WEIGHT = 0.12  # in company, of what is only drawn with a ground of its own
COMPANY_WEIGHTS = _table("symbol 0.03 flag 0.1 hand 0.08 face 0.2 person 0.7")  # of things in places and with others
VAGUE_WEIGHT = 0.25
FIRST, FIRST_WEIGHT = 400, 1.7  # the table begins with what is asked for most
FITTING = {  # places a kind is drawn in more often
    "sea": ("underwater", "underwater", "sea", "beach"),
    "bird": ("sky", "forest", "meadow", "sea", "sunset"),
    "vehicle": ("city", "night_city", "city", "desert", "sky"),
    "food": ("room", "tatami_room", "festival"),
    "drink": ("room", "tatami_room", "beach"),
    "fruit": ("room", "meadow", "tatami_room"),
    "japan": ("tatami_room", "festival", "cherry_avenue", "night_sky"),
    "plant": ("meadow", "forest", "mountains", "snowfield"),
    "flower": ("meadow", "flower_field", "sky"),
    "building": ("city", "mountains", "snowfield", "sunset", "night_sky", "cherry_avenue"),
    "sky": ("night_sky", "space", "sky", "sunset"),
    "insect": ("meadow", "flower_field", "forest", "paddy"),
    "place": ("sunset", "sky", "cherry_avenue", "night_sky"),
}
