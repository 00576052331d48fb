"""Every text of the page, in English and in Japanese, and the sentences for errors and for what a prompt lost."""

from __future__ import annotations

from concurrent.futures import CancelledError

from demo.inputs import MissingError
from jsd import errors
from jsd.language import said_in
from jsd.result import FAR, Result

LANGUAGES = ("en", "ja")
# Prompts to click. In English the second words stand beside them.
EXAMPLES = {
    "draw": [
        ("富士山 浮世絵", "Mount Fuji, ukiyo-e"),
        ("桜並木の城", "castle among cherry trees"),
        ("和室のおにぎり", "rice ball in a Japanese room"),
        ("花畑の柴犬", "Shiba in a field of flowers"),
        ("紅葉 水彩画", "maple leaf, watercolour"),
        ("猫 ドット絵", "cat, pixels"),
    ],
    "picture": [("城 水彩画", "castle, watercolour"), ("雪景色の城 浮世絵", "castle in snow, ukiyo-e")],
    "repaint": [("青い背景のロケット", "rocket on blue"), ("青い背景の猫", "cat on blue")],
}
# What the browser translates: labels and the like. Key: English, Japanese.
LABELS = {
    "title": ("Pictures from Japanese words", "日本語のことばから、絵を。"),
    "draw": ("Draw", "描く"),
    "picture": ("From a picture", "画像から"),
    "repaint": ("Repaint", "描き直す"),
    "go": ("Draw", "描く"),
    "stop": ("Cancel", "中止"),
    "prompt": ("Prompt", "プロンプト"),
    "prompt_hint": ("What the picture shows, in Japanese", "何を描くか、日本語で"),
    "negative_prompt": ("What the picture must not show", "描かないもの"),
    "image": ("Picture", "もとの画像"),
    "mask_hint": ("Paint over what is to change.", "描き直す場所をブラシで塗ってください。"),
    "editor_hint": (
        "# Drop a picture here\nor click to choose one",
        "# 画像をここにドロップ\nまたはクリックして選択",
    ),
    "prompt_strength": ("How far to depart from the picture", "もとの画像からどれだけ変えるか"),
    "num_outputs": ("Pictures", "枚数"),
    "seed": ("Seed", "シード"),
    "seed_hint": ("random", "ランダム"),
    "settings": ("Settings", "詳細設定"),
    "width": ("Width", "幅"),
    "height": ("Height", "高さ"),
    "num_inference_steps": ("Steps", "ステップ数"),
    "guidance_scale": ("Guidance", "ガイダンス"),
    "scheduler": ("Sampler", "サンプラー"),
    "lora": ("Adapter (LoRA)", "アダプター(LoRA)"),
    "lora_scale": ("Strength of the adapter", "アダプターの強さ"),
    "empty": (
        '<div class="empty"><span>Your picture appears here.</span></div>',
        '<div class="empty"><span>ここに画像が表示されます。</span></div>',
    ),
} | {words: (f"{words} · {english}", words) for many in EXAMPLES.values() for words, english in many}

# What the server writes. Key: English, Japanese.
TEXTS = {
    "reading": ("Getting ready …", "準備しています…"),
    "step": ("Step {done} of {total}", "{total} ステップ中 {done}"),
    "left": (", about {seconds} s left", "、残り約 {seconds} 秒"),
    "finishing": ("Finishing …", "仕上げています…"),
    "seed": ("seed", "シード"),
    "reuse": ("Use this seed", "このシードを使う"),
    "to_picture": ("Draw from it", "この画像から描く"),
    "to_repaint": ("Repaint", "描き直す"),
    "again": ("Draw it again elsewhere", "ほかの場所で同じ画像を描く"),
    "command": ("Command", "コマンド"),
    "http": ("HTTP request, for script/serve", "HTTP リクエスト(script/serve に)"),
    "copy": ("Copy", "コピー"),
    "files": ("Files for it:", "使うファイル:"),
    "facts": ("{width} × {height}, {steps} steps of {scheduler}", "{width} × {height}、{scheduler} {steps} ステップ"),
    "gone": (
        "That file is no longer kept here; upload it again, or draw it again.",
        "そのファイルはもう残っていません。もう一度アップロードするか、描き直してください。",
    ),
    "large": ("This file is too large; {most} MB are allowed.", "ファイルが大きすぎます。{most} MB までです。"),
    "cancelled": ("Cancelled.", "中止しました。"),
    "unexpected": (
        "Something went wrong on the server. Its log says what. Please try again.",
        "サーバーで問題が起きました(詳細はサーバーのログにあります)。もう一度お試しください。",
    ),
    "no_image": ("Choose a picture first.", "先に画像を選んでください。"),
    "no_mask": ("Paint over the part that is to change.", "描き直す場所をブラシで塗ってください。"),
    # notes
    "far": (
        "{width} × {height} is far from {own_width} × {own_height}, the model's own size: expect shreds, or the same "
        "thing several times.",
        "{width} × {height} はモデル本来の {own_width} × {own_height} から離れているので、絵が崩れたり、"
        "同じものがいくつも描かれたりします。",
    ),
    "removed": ("Syntax of other tools was taken out: {removed}", "ほかのツールの構文を取り除きました: {removed}"),
    "unknown": ("The model does not know these characters: {unknown}", "モデルが知らない文字です: {unknown}"),
    "truncated": (
        "The prompt is too long: the last {truncated} tokens were left out.",
        "プロンプトが長すぎるので、末尾の {truncated} トークンを使いませんでした。",
    ),
    "flagged": (
        "The safety checker held back {flagged} of {all} pictures.",
        "{all} 枚のうち {flagged} 枚は、セーフティチェッカーにより表示しません。",
    ),
}
OTHER_ERRORS = {  # without a field of their own
    CancelledError: TEXTS["cancelled"],
    errors.NSFWError: (
        "The safety checker held back every picture. Try another prompt or seed.",
        "すべての画像がセーフティチェッカーにより表示できません。プロンプトかシードを変えてお試しください。",
    ),
    errors.QueueFullError: (
        "Too many pictures are being drawn just now. Please try again in a moment.",
        "ただいま混み合っています。少し待ってから、もう一度お試しください。",
    ),
    errors.MemoryShortError: (
        "The memory does not suffice for this. Take a smaller size or fewer pictures.",
        "メモリーが足りません。サイズか枚数を減らしてください。",
    ),
    errors.NaNError: (
        "The model's numbers overflowed, so there is no picture. Try another seed, or less guidance.",
        "計算があふれて画像ができませんでした。シードを変えるか、ガイダンスを弱くしてお試しください。",
    ),
    errors.EngineLostError: (
        "Nothing can be drawn any more; the page has to be started again.",
        "これ以上描けません。このページのサーバーを再起動する必要があります。",
    ),
}


def language_of(accepted: str) -> int:
    """Return the index of a text for an Accept-Language header: 1 (Japanese) if that comes first, else 0 (English)."""
    return int(accepted.strip().lower().startswith("ja"))


def text(language: int, key: str, **values: object) -> str:
    """Return the text of `key` in a language, with `values` filled in."""
    return TEXTS[key][language].format(**values)


def refusal(language: int, error: errors.InputError) -> str:
    """Return the sentence to show beside the field that `error` names."""
    if isinstance(error, MissingError):
        return text(language, error.key)
    sentence = said_in(LANGUAGES[language], error.message)
    return sentence if sentence.endswith("。") else f"{sentence[:1].upper()}{sentence[1:]}{'。' if language else '.'}"


def failure(language: int, error: Exception) -> str:
    """Return the sentence for an error that belongs to no field."""
    return next((texts[language] for kind, texts in OTHER_ERRORS.items() if isinstance(error, kind)), None) or text(
        language, "unexpected"
    )


def notes(language: int, result: Result) -> list[str]:
    """Return sentences on what of a request was not used, on its size, and on pictures held back: `Result.notes`."""
    request, size = result.request, (result.request.width, result.request.height)
    own, found = result.own_size or size, []
    if any(max(side, other) > FAR * min(side, other) for side, other in zip(size, own, strict=True)):
        found.append(text(language, "far", width=size[0], height=size[1], own_width=own[0], own_height=own[1]))
    if result.removed:
        found.append(text(language, "removed", removed=" ".join(result.removed)))
    if result.unknown:
        found.append(text(language, "unknown", unknown=" ".join(dict.fromkeys(result.unknown))))
    if result.truncated:
        found.append(text(language, "truncated", truncated=result.truncated))
    if result.flagged:
        found.append(text(language, "flagged", flagged=result.flagged, all=request.num_outputs))
    return found
