"""Every command explains itself: `--help` lists its flags."""

import re

import pytest

from jsd import cli

# command: the words that its help lists
HELP = {
    "": "generate weights detect-watermark bulk eval train",
    "generate": "-p --prompt -i --input -o --output",
    "weights": "verify pull convert list",
    "weights verify": "folder",
    "weights pull": "repository --revision --token --to --dtype",
    "weights convert": "source folder --dtype",
    "weights list": "",
    "detect-watermark": "FILE",
    "bulk": "PROMPTS --to --as --seed --actors --address --save-every",
    "eval": "--weights --json --sheet -i --prompts --aliases --weapons --seed --claims --columns --workdir",
    "train": "embedded tokenizer filter loop export lora",
    "train embedded": "--workdir --to --columns",
    "train tokenizer": "captions --to --vocab-size --max-length --character-coverage --count",
    "train filter": """shards folder --min-side --max-aspect --language --max-watermark --min-similarity --clip --device
        --keep-duplicates""",
    "train loop": """--stage --model --tokenizer --shards --out --steps --batch --accumulate --size --lr --warmup
        --dropout --min-snr --ema --seed --workers --save-every --random-crop --gradient-checkpointing --prompts
        --log-with --cpu""",
    "train export": "run folder --name",
    "train lora": "--model --images --to --size --rank --steps --batch --lr --seed --cpu",
}


@pytest.mark.parametrize("command", HELP)
def test_help_lists_every_flag(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command.split(), "--help"])
    assert caught.value.code == 0
    words = set(re.findall(r"[\w-]+", capsys.readouterr().out))
    assert {"-h", "--help", *HELP[command].split()} <= words


def test_a_command_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["paint"])
    assert caught.value.code == 2
    assert "'paint'" in capsys.readouterr().err
