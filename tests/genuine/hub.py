"""A model repository of 2022 with all its traps, and a server on 127.0.0.1 that speaks as much of the hub's API."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPTextConfig, CLIPTextModel

from tests.fakes import train_sentencepiece
from tests.genuine.old_layout import write_json, write_part, write_rest

ROWS = 160  # of the text embedding; the tokenizer has fewer tokens
LENGTH = 16
SHA = "0123456789abcdef0123456789abcdef01234567"
SPECIAL = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]", "bos_token": "<s>"}


@dataclass
class Models:
    """The models a repository was made from, as they are today: what must come out."""

    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    safety_checker: StableDiffusionSafetyChecker


def make_models() -> Models:
    """Small models of Stable Diffusion's kinds whose numbers are exact in half precision."""
    torch.manual_seed(5)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=ROWS,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
    )
    vae.decoder.conv_out.weight.data *= 3  # contrast
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    checker = StableDiffusionSafetyChecker(
        CLIPConfig(
            text_config={**small, "vocab_size": 8},
            vision_config={**small, "image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
    )
    models = Models(text.eval(), unet.eval(), vae.eval(), checker.eval())
    for model in vars(models).values():
        model.half().float()
    return models


def make_2022_folder(folder: Path) -> Models:
    """Write the repository, and return the models that are in it."""
    models = make_models()
    for part, model in vars(models).items():
        write_part(folder, part, model)
    # rinna's numbering: <unk> 0, <s> 1, </s> 2, and the rest are user-defined.
    spiece = train_sentencepiece(
        folder / "spiece",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        user_defined_symbols=["[PAD]", "[CLS]", "[SEP]", "[MASK]"],
        normalization_rule_name="nmt_nfkc",
    )
    write_rest(folder, spiece, {**SPECIAL, "extra_ids": 0, "model_max_length": 1e30}, 32)
    spiece.unlink()
    write_json(folder / "tokenizer" / "special_tokens_map.json", SPECIAL)
    (folder / "sd-v1-4.ckpt").write_bytes(b"not needed" * 1000)
    (folder / "unet" / "flax_model.msgpack").write_bytes(b"not needed" * 1000)
    return models


@dataclass
class Hub:
    """What a served repository asks for, and what it was asked."""

    folder: Path
    url: str = ""
    token: str | None = None  # one that has accepted the licence; None: open
    cut: str = ""  # "once": break the first download of each large file off half-way; "always": each
    fetched: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)


@contextlib.contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve `hub.folder` as owner/name on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            if parts[:2] == ["api", "models"] and parts[2:4] == ["owner", "name"]:
                return self.api(parts[4:])
            if parts[:3] == ["owner", "name", "resolve"] and (hub.folder / "/".join(parts[4:])).is_file():
                return self.file("/".join(parts[4:]))
            return self.refuse(404, "EntryNotFound" if parts[:2] == ["owner", "name"] else "RepoNotFound")

        def api(self, rest: list[str]) -> None:
            if rest[:1] == ["revision"] and rest[1] not in ("main", SHA):
                return self.refuse(404, "RevisionNotFound")
            files = [path for path in sorted(hub.folder.rglob("*")) if path.is_file()]
            names = {path.relative_to(hub.folder).as_posix(): path.stat().st_size for path in files}
            if rest[:1] == ["tree"]:
                rows = [{"type": "file", "path": n, "size": s, "oid": etag(n)} for n, s in names.items()]
                return self.answer(json.dumps(rows).encode(), "application/json")
            siblings = [{"rfilename": name, "size": size, "blobId": etag(name)} for name, size in names.items()]
            about = {"id": "owner/name", "modelId": "owner/name", "sha": SHA, "private": False, "siblings": siblings}
            return self.answer(json.dumps(about | {"gated": bool(hub.token)}).encode(), "application/json")

        def file(self, name: str) -> None:
            if hub.token and self.headers.get("authorization") != f"Bearer {hub.token}":
                return self.refuse(401 if "authorization" not in self.headers else 403, "GatedRepo")
            data = (hub.folder / name).read_bytes()
            start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            headers = {"etag": f'"{etag(name)}"', "x-repo-commit": SHA, "accept-ranges": "bytes"}
            if start:
                headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            broken = self.command == "GET" and len(data) > 10_000
            broken = broken and (hub.cut == "always" or (hub.cut == "once" and name not in hub.fetched))
            if self.command == "GET":
                (hub.resumed if start else hub.fetched).append(name)
            self.answer(data[start:], "application/octet-stream", headers, 206 if start else 200, broken)

        def refuse(self, code: int, reason: str) -> None:
            self.answer(b"{}", "application/json", {"x-error-code": reason, "x-error-message": reason}, code)

        def answer(self, data: bytes, kind: str, headers: dict | None = None, code: int = 200, broken=False) -> None:
            self.send_response(code)
            for key, value in {"content-type": kind, "content-length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data[: len(data) // 2] if broken else data)
            if broken:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def etag(name: str) -> str:
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
