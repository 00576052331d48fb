"""The text `parameters` of a picture file, as AUTOMATIC1111's web UI writes it. Many programs read it.

    猫の肖像画 油絵
    Negative prompt: 白黒
    Steps: 8, Sampler: UniPC, CFG scale: 2, Seed: 1, Size: 256x256, Model: embedded, Version: ...

A reader finds the parts by names with a colon. So in a prompt the colon after such a name is a full-width one here.
Otherwise a prompt could state a seed or a negative prompt that was not used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

# The names there of our samplers.
SAMPLERS = {
    "DDIM": "DDIM",
    "K_LMS": "LMS",
    "PNDM": "PLMS",
    "K_EULER": "Euler",
    "K_EULER_ANCESTRAL": "Euler a",
    "K_HEUN": "Heun",
    "DPM_SOLVER_PP_2M_KARRAS": "DPM++ 2M Karras",
    "UNI_PC": "UniPC",
    "LCM": "LCM",
}
# The names of our values, and others that readers take for values.
NAMES = re.compile(
    r"(negative\s+prompt|steps|sampler|schedule\s+type|scale|seed|size|model|strength|version|hash|hashes|ensd|skip|vae)"
    r"(\s*):",
    re.IGNORECASE,
)


def infotext(metadata: Mapping[str, Any]) -> str:
    """Return the text for the metadata that `jsd.result.Result.metadata` returns. What `metadata` lacks is left out."""
    lines = [NAMES.sub(r"\1\2：", metadata.get("prompt", ""))]
    if metadata.get("negative_prompt"):
        lines.append("Negative prompt: " + NAMES.sub(r"\1\2：", metadata["negative_prompt"]))
    sampler = metadata.get("scheduler")
    values = {
        "Steps": metadata.get("num_inference_steps"),
        "Sampler": SAMPLERS.get(sampler, sampler),
        "CFG scale": metadata.get("guidance_scale"),
        "Seed": metadata.get("seed"),
        "Size": f"{metadata['width']}x{metadata['height']}" if {"width", "height"} <= metadata.keys() else None,
        "Model": metadata.get("model"),
        "Denoising strength": metadata.get("prompt_strength"),
        "Version": metadata.get("generated_by"),
    }
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    """Return a value as text, as JSON if it has characters that separate values."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:"\n]', text) else text
