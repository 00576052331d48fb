"""What can be drawn: the concepts of concepts.tsv, with their names in both languages."""

from dataclasses import dataclass
from pathlib import Path

from jsd.errors import TrainingError

CONCEPTS_FILE = Path(__file__).with_name("concepts.tsv")
COLUMNS = ("id", "emoji", "ja", "en", "counter", "kind", "alone", "bare")


@dataclass(frozen=True)
class Concept:
    """Something that can be drawn. `ja` and `en` hold its names, the canonical one first; `counter` is the Japanese
    counter word, `kind` the sort of thing it is. `alone` are the names of events, activities and sounds, which take no
    number, colour or other thing; `bare` the English names without a and plural ("sushi"), or with the ("the moon").
    """

    id: str
    emoji: tuple[str, ...]
    ja: tuple[str, ...]
    en: tuple[str, ...]
    counter: str = "個"
    kind: str = "object"
    alone: frozenset[str] = frozenset()
    bare: frozenset[str] = frozenset()


def load_concepts(path: Path = CONCEPTS_FILE) -> dict[str, Concept]:
    """The concepts by id, in the table's order. Raises `TrainingError` for a row that has not eight cells."""
    concepts = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines()[1:], 2):
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise TrainingError(
                "{}, line {}: {} cells; there must be one for each of {}", path, number, len(cells), COLUMNS
            )
        ident, emoji, ja, en, counter, kind, *marks = cells
        alone, bare = (frozenset(mark.split("|")) - {"-"} for mark in marks)
        names = tuple(ja.split("|")), tuple(en.split("|"))
        concepts[ident] = Concept(ident, tuple(emoji.split()), *names, counter, kind, alone, bare)
    return concepts
