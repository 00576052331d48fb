"""The prompts of the evaluation: (concept, style) pairs that were trained on, held-out pairs, and other spellings.

They are chosen at random. The same seed always gives the same prompts.
"""

import unicodedata
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from embedded.captions import prompt_for, swap_kana
from embedded.drawings import Concept, Drawing
from embedded.pictures import held_out, styles_of
from embedded.references import PAIRED, join_style
from embedded.styles import COLOURS, STYLES

GROUPS = ("trained", "held_out", "aliases")
Key, Choice = TypeVar("Key", bound=Hashable), TypeVar("Choice")


@dataclass(frozen=True)
class Task:
    """A prompt of the evaluation, with the concept (its id) and the style that the picture has to show. `group` is one
    of GROUPS, or "flagged" for a concept that the safety checker has to hold back.
    """

    group: str
    prompt: str
    concept: str
    style: str


def deal(choices: Mapping[Key, Sequence[Choice]], count: int, rng: np.random.Generator) -> list[tuple[Key, Choice]]:
    """Choose `count` different pairs (key, one of the key's choices) at random, or all if there are fewer. The keys
    take turns, in a new random order each round, so every key comes once before any comes twice.
    """
    left = {key: [options[i] for i in rng.permutation(len(options))] for key, options in choices.items() if options}
    dealt = []
    while left and len(dealt) < count:
        keys = list(left)
        dealt += [(keys[i], left[keys[i]].pop()) for i in rng.permutation(len(keys))]
        left = {key: options for key, options in left.items() if options}
    return dealt[:count]


def sample_pairs(drawings: Sequence[Drawing], count: int, seed: int) -> list[Task]:
    """Return prompts for `count` random (concept, style) pairs: two thirds were trained on, one third is held out."""
    rng = np.random.default_rng((seed, 0))
    trained, held = {}, {}
    for drawing in drawings:
        known = trained.setdefault(drawing.concept, [])
        known += [style for style in styles_of(drawing) if style not in known]
        # As in training, each medium of PAIRS has one colour. With all colours, pairs would outnumber other styles.
        styles = [*STYLES, *(join_style(medium, rng.choice(list(COLOURS))) for medium in PAIRED)]
        held[drawing.concept] = [style for style in styles if held_out(drawing.concept.id, style)]
    dealt = {"trained": deal(trained, count - count // 3, rng), "held_out": deal(held, count // 3, rng)}
    return [
        Task(group, prompt_for(concept, style), concept.id, style)
        for group, chosen in dealt.items()
        for concept, style in chosen
    ]


def sample_concepts(concepts: Sequence[Concept], count: int, seed: int) -> list[Task]:
    """Return `count` prompts for these concepts in random styles of STYLES, held-out pairs included. If there are fewer
    different prompts than `count`, they are repeated.
    """
    rng = np.random.default_rng((seed, 2))
    every = deal({concept: tuple(STYLES) for concept in concepts}, len(concepts) * len(STYLES), rng)
    chosen = [every[i % len(every)] for i in range(count if every else 0)]
    return [Task("flagged", prompt_for(concept, style), concept.id, style) for concept, style in chosen]


def half_width(text: str) -> str:
    """Return katakana in the half-width forms of old terminals, with separate voice marks: ガム as ｶﾞﾑ."""
    narrow = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFF9E)}
    narrow |= {"\u3099": "\uff9e", "\u309a": "\uff9f"}
    return "".join(narrow.get(c, c) for c in unicodedata.normalize("NFD", text))


def spellings(concept: Concept) -> list[str]:
    """Return all Japanese spellings of a concept except its canonical name. They are its other names, hiragana names in
    katakana and the reverse, and katakana names in half-width forms.
    """
    names = [*concept.ja, *map(swap_kana, concept.ja)]
    katakana = filter(_is_katakana, names)
    return [name for name in dict.fromkeys([*names, *map(half_width, katakana)]) if name != concept.ja[0]]


def _is_katakana(name: str) -> bool:
    return all("ァ" <= c <= "ヺ" or c == "ー" for c in name)


def sample_aliases(concepts: Iterable[Concept], count: int, seed: int) -> list[Task]:
    """Return up to `count` random prompts, each a spelling of a concept other than its canonical name. Spellings that
    several concepts share are left out.
    """
    owners: dict[str, set[str]] = {}
    choices = {concept: spellings(concept) for concept in concepts}
    for concept, names in choices.items():
        for name in (*names, concept.ja[0]):
            owners.setdefault(unicodedata.normalize("NFKC", name), set()).add(concept.id)
    unambiguous = {
        concept: [name for name in names if len(owners[unicodedata.normalize("NFKC", name)]) == 1]
        for concept, names in choices.items()
    }
    dealt = deal(unambiguous, count, np.random.default_rng((seed, 1)))
    return [Task("aliases", name, concept.id, "plain") for concept, name in dealt]
