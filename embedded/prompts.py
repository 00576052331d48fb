"""The prompts of the evaluation: scenes that were trained on, held-out compositions, other spellings, and words.

They are chosen at random from the table of concepts alone, without the pictures that scenes are drawn from. The same
seed always gives the same prompts.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from embedded.scenes import Assets, Concept, Scene, Thing, prompt_for, sample_scene
from embedded.scenes.places import PLACES
from embedded.scenes.sprites import Drawing
from embedded.scenes.words.japanese import kana_swapped
from jsd.language import Text

# How many of 600 prompts each group gets. "one" is a single thing; the groups "held out" show compositions (a thing
# with a style, a ground or another thing) that training leaves out.
GROUPS = {
    "one": 120, "one, held out": 60, "spelling": 80, "place": 70, "place, held out": 35, "two": 60, "two, held out": 30,
    "relation": 50, "count": 45, "colour": 50,
}  # fmt: skip
UNASKED = frozenset(
    {"symbol", "flag"}
)  # kinds of concepts that hardly anybody asks for, and that training shows rarely
UNDRAWN = Drawing("", False)
PATIENCE = 3000  # scenes in a row without a new prompt, after which there are thought to be no more


@dataclass(frozen=True)
class Task:
    """A prompt of the evaluation, in Japanese and English, and the scene that its picture has to show. `group` is one
    of GROUPS, or another name for prompts that are measured by themselves.
    """

    group: str
    ja: str
    en: str
    scene: Scene

    @classmethod
    def of(cls, group: str, scene: Scene, ja: str | None = None) -> "Task":
        """A task for a scene, with its plain prompts or with other Japanese words."""
        return cls(group, ja or prompt_for(scene), prompt_for(scene, "en"), scene)


def plain(concept: Concept, style: str = "plain") -> Scene:
    """A scene that shows one concept on white, in a style."""
    return Scene((Thing(concept, UNDRAWN),), style=style)


def shares(weights: Mapping[str, int], count: int) -> dict[str, int]:
    """Share `count` among the keys of `weights` in proportion to them. The numbers add up to `count`."""
    ends = np.cumsum(list(weights.values())) * count / sum(weights.values())
    return dict(zip(weights, np.diff(ends.round().astype(int), prepend=0).tolist(), strict=True))


def sort_of(scene: Scene) -> str:
    """What a scene tests: "one", "place", "two", "relation", "three", "count" or "colour"."""
    first = scene.things[0]
    if len(scene.things) > 2:
        return "three"
    if len(scene.things) == 2:
        return "two" if scene.relation in (None, "beside") else "relation"
    if first.count > 1:
        return "count"
    if first.colour:
        return "colour"
    return "place" if scene.ground in PLACES else "one"


def sample_tasks(concepts: Mapping[str, Concept], count: int, seed: int) -> list[Task]:
    """Return `count` prompts for random scenes of `concepts`, shared among GROUPS, none of them twice.

    They are as frequent as in training: a concept that people ask for often comes more often. Raises ValueError if
    there are not enough different prompts.
    """
    wanted = shares(GROUPS, count)
    rng = np.random.default_rng((seed, 0))
    found: dict[str, dict[str, Task]] = {group: {} for group in wanted}
    found["spelling"] = {task.ja: task for task in sample_spellings(concepts.values(), wanted["spelling"], rng)}
    for split, end in (("train", ""), ("held_out", ", held out")):
        groups = [group for group in wanted if group != "spelling" and group.endswith("held out") == bool(end)]
        scenes, missed = _scenes(concepts, rng, split), 0
        while missed < PATIENCE and any(len(found[group]) < wanted[group] for group in groups):
            scene = next(scenes)
            group, before = sort_of(scene) + end, sum(map(len, found.values()))
            if group in groups and len(found[group]) < wanted[group]:
                task = Task.of(group, scene)
                found[group].setdefault(task.ja, task)
            missed = 0 if sum(map(len, found.values())) > before else missed + 1
    if any(len(found[group]) < wanted[group] for group in wanted):
        raise ValueError(Text("{} concepts are too few for {} different prompts; ask for fewer", len(concepts), count))
    return [task for group in wanted for task in found[group].values()]


def _scenes(concepts: Mapping[str, Concept], rng: np.random.Generator, split: str) -> Iterator[Scene]:
    """Yield random scenes of a split, sampled from the table of concepts alone."""
    drawings = {name: [UNDRAWN] for name in concepts}
    table = Assets(dict(concepts), drawings, np.empty(0, np.uint8), {UNDRAWN.key: (0, 1, 1, 0.0)})
    while True:
        scene = sample_scene(rng, table, split)
        if all(thing.concept.kind not in UNASKED for thing in scene.things):
            yield scene


def half_width(text: str) -> str:
    """Return katakana in the half-width forms of old terminals, with separate voice marks: ガム as ｶﾞﾑ."""
    narrow = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFF9E)}
    narrow |= {"\u3099": "\uff9e", "\u309a": "\uff9f"}
    return "".join(narrow.get(c, c) for c in unicodedata.normalize("NFD", text))


def spellings(concept: Concept) -> list[str]:
    """Return all Japanese spellings of a concept except its canonical name. They are its other names, hiragana names in
    katakana and the reverse, and katakana names in half-width forms.
    """
    names = [*concept.ja, *map(kana_swapped, concept.ja)]
    katakana = [name for name in names if all("ァ" <= c <= "ヺ" or c == "ー" for c in name)]
    return [name for name in dict.fromkeys([*names, *map(half_width, katakana)]) if name != concept.ja[0]]


def sample_spellings(concepts: Iterable[Concept], count: int, rng: np.random.Generator) -> list[Task]:
    """Return up to `count` prompts, each a spelling of another concept than the rest, and not its canonical name.
    Spellings that several concepts share are left out, and so are concepts of UNASKED kinds.
    """
    owners: dict[str, set[str]] = {}
    choices = {concept.id: (concept, spellings(concept)) for concept in concepts}
    for concept, names in choices.values():
        for name in (*names, concept.ja[0]):
            owners.setdefault(unicodedata.normalize("NFKC", name), set()).add(concept.id)
    tasks = []
    for i in rng.permutation(len(choices)):
        concept, names = list(choices.values())[i]
        own = [name for name in names if len(owners[unicodedata.normalize("NFKC", name)]) == 1]
        if own and concept.kind not in UNASKED and len(tasks) < count:
            tasks.append(Task.of("spelling", plain(concept), own[int(rng.integers(len(own)))]))
    return tasks
