"""The page: three tabs in a browser that draw, draw from a picture, and repaint what was painted over (`script/demo`).

`page` and `form` lay it out with gradio, which no other module imports. `studio` draws for the visitors with one
engine. `album` keeps their pictures as files, `panels` writes what is shown of them as HTML, in the languages of
`texts`.
"""

import os

# gradio tells its makers who uses it, and looks for news at the Hugging Face hub. This page speaks to nobody.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
