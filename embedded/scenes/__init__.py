"""Scenes with Japanese and English captions: what the embedded model learns from.

assets = load_assets(icons)                the sprites, rendered once from openly licensed SVG emoji
scene = sample_scene(rng, assets)          what is to be seen: things, relation, ground, weather, style
picture = render(scene, rng, assets)       uint8, 256 x 256 x 3
words = caption(scene, rng, "ja")          one of many ways to say it

The layers, from the bottom: concepts, icons, sprites, colours; scene, traits; canvas, places, styles; words; sampling,
layout, render. docs/scenes.md says how to add a concept, a place or a style.
"""

from embedded.scenes.colours import COLOURS, THING_COLOURS
from embedded.scenes.concepts import Concept, load_concepts
from embedded.scenes.places import PLACES
from embedded.scenes.render import render, render_with_spots
from embedded.scenes.sampling import sample_scene
from embedded.scenes.scene import Scene, Thing, held_out
from embedded.scenes.sprites import Assets, load_assets
from embedded.scenes.styles import STYLES
from embedded.scenes.words.caption import caption
from embedded.scenes.words.prompt import prompt_for

__all__ = [
    "COLOURS",
    "PLACES",
    "STYLES",
    "THING_COLOURS",
    "Assets",
    "Concept",
    "Scene",
    "Thing",
    "caption",
    "held_out",
    "load_assets",
    "load_concepts",
    "prompt_for",
    "render",
    "render_with_spots",
    "sample_scene",
]
