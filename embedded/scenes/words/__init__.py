"""Captions of scenes, composed the way people write prompts, in Japanese and English, from the scene alone.

japanese.json and english.json hold the words and templates. A caption grows from the inside out: the things, how they
stand, the colour or place behind them, the weather, the style. What a step makes is of a sort, and the templates of
the next step depend on it:

    noun     one thing: whatever is put before it belongs to it (草原にいる猫, 油絵の猫)
    bare     the same in English without an article: a keyword (cat oil painting)
    nouns    a longer noun phrase: several things, a number of them, a thing with its ground (犬と猫, 草原の猫)
    clause   a whole sentence or the like (猫が三匹, 犬と猫が並んでいる)
    loose    parts side by side (猫、草原; 犬の右に猫): more is only added with a comma or a blank

A caption never says more than the picture shows; a tenth say less. In the templates {s} is what came so far; {w}, {of},
{by} and {drawn} are words for a style, {c} for a colour, {p} for a place; {a} and {b} are two things, {n} a name, {k} a
number with its counter, {v} いる or ある.
"""
