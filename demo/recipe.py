"""The inputs of a result as the command and as the HTTP request that draw it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from jsd.result import Result

URL = "http://127.0.0.1:5000/predictions"  # where script/serve listens
PICTURES = {"image": "picture.png", "mask": "mask.png"}  # as `Album.add` names them
KINDS = {"image": "image/png", "mask": "image/png", "lora": "application/octet-stream"}  # of files, in a data URI


def inputs_of(result: Result, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that give a result again: those that were `given`, and what was chosen at random.

    A file is given by its name. With a picture the size is named too, because it followed from the larger picture that
    was uploaded.
    """
    request = result.request
    inputs = {**given, "seed": request.seed}
    if request.image is not None:
        inputs |= {"width": request.width, "height": request.height}
    return inputs | {name: file for name, file in PICTURES.items() if getattr(request, name) is not None}


def command(inputs: Mapping[str, Any]) -> str:
    """Return the command line, for a POSIX shell."""
    words = ["script/predict"]
    for name, value in inputs.items():
        words += ["-i", shlex.quote(f"{name}=@{value}" if name in KINDS else f"{name}={value}")]
    return " ".join([*words, "-o", "out.png"])


def http_request(inputs: Mapping[str, Any]) -> str:
    """Return a curl command, for a POSIX shell. Files become data URIs there."""
    plain = {name: value for name, value in inputs.items() if name not in KINDS}
    files = {name: value for name, value in inputs.items() if name in KINDS}
    curl = f"curl -s {URL} -H 'content-type: application/json' -d"
    body = json.dumps({"input": plain}, ensure_ascii=False)
    if not files:
        return f"{curl} {shlex.quote(body)}"
    # Through a pipe, because an argument of a program may have 128 KB at most on Linux.
    text = shlex.quote(body.removesuffix("}}"))
    for name, file in files.items():
        uri = f"\"$(base64 < {shlex.quote(file)} | tr -d '\\n')\""
        text += shlex.quote(f', "{name}": "data:{KINDS[name]};base64,') + uri + shlex.quote('"')
    return f"printf %s {text}{shlex.quote('}}')} |\n  {curl} @-"
