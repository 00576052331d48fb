"""The page: three tabs in a browser that draw, draw from a picture, and repaint what was painted over (`script/demo`).

`page` lays it out with gradio, the only module that imports it. `studio` draws for its visitors with one engine.
`album` keeps their pictures as files, `panels` writes what is shown of them as HTML, in the languages of `texts`.
"""
