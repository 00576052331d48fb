"""The language of what a user reads: who chooses it, and what it leaves alone."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import re
import runpy
import subprocess
import sys

import pytest
from PIL import Image

import predict
from jsd import cli
from jsd.errors import InputError, WeightsError
from jsd.images import read_metadata
from jsd.language import Text, english, language, said_in

JAPANESE = re.compile("[ぁ-んァ-ヶ一-龠]")
VARIABLES = ("JSD_LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")


def test_the_locale_chooses_the_language_of_a_command():
    def said(**variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
        command = [sys.executable, "-m", "jsd", "generate", "-i", "seed=one"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    sentence = "エラー: seed: 'one' が指定されました。整数を指定してください(null で既定値になります)。\n"
    assert said(LANG="ja_JP.UTF-8") == sentence
    assert said(LANG="C") == "error: seed: 'one' was given; an integer is wanted, or null for the default\n"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "en"),
        ({"LANG": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "ja"}, "ja"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "ja_JP.eucJP", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "ja_JP.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "C", "LC_ALL": "ja_JP.UTF-8"}, "ja"),
        ({"LANG": "en_US.UTF-8", "LANGUAGE": "ja:en"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LANGUAGE": "en:ja"}, "en"),
        ({"LANG": "fr_FR.UTF-8", "LANGUAGE": "fr:ja"}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "LANGUAGE": ""}, "ja"),
        ({"LANG": "ja_JP.UTF-8", "JSD_LANG": "en"}, "en"),
        ({"LANG": "C", "LC_ALL": "C", "JSD_LANG": "ja"}, "ja"),
    ],
)
def test_the_language_is_that_of_the_setting_or_else_of_the_locale(monkeypatch, variables, expected):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language() == expected


def test_a_language_that_is_not_there_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("JSD_LANG", "fr")
    assert cli.main(["generate", "-p", "猫"]) == 2
    assert capsys.readouterr().err == "error: JSD_LANG: 'fr' was given; allowed are en, ja\n"


def test_an_error_can_be_said_in_both_languages_also_after_a_pickle_and_in_another_error(monkeypatch):
    inner = InputError("seed", "{} was given; allowed are {}", "5", "1, 2")
    outer = WeightsError("{}: defaults: {}", "here", inner)
    assert english(outer) == str(outer) == "here: defaults: seed: 5 was given; allowed are 1, 2"
    assert said_in("ja", outer) == "here: defaults: seed: 5 が指定されました。指定できる値は 1, 2 です。"
    assert said_in("ja", pickle.loads(pickle.dumps(Text("{} was given; allowed are {}", 1, 2)))).startswith("1 が")
    monkeypatch.setenv("JSD_LANG", "ja")
    assert str(WeightsError("{}: defaults: {}", "here", inner)) == said_in("ja", outer)
    assert english(InputError("seed", "given twice")) == "seed: given twice"


def test_what_is_no_message_of_ours_stays_as_it_is():
    assert said_in("ja", "given {") == "given {"
    assert said_in("ja", KeyError("a")) == "'a'"
    assert said_in("ja", Text("")) == ""
    assert said_in("ja", Text("{}", OSError(2, "No such file or directory", "x"))).startswith("'x': ファイル")


def test_what_programs_read_is_the_same_in_both_languages(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    files, printed = {}, {}
    for name in ("en", "ja"):
        monkeypatch.setenv("JSD_LANG", name)
        file = tmp_path / f"{name}.png"
        steps = ["-i", "num_inference_steps=1", "-i", "seed=1", "-i", "width=64", "-i", "height=64"]
        assert cli.main(["generate", "-p", "猫 𰻞", *steps, "-o", str(file)]) == 0
        metadata = read_metadata(file)
        del metadata["timings"]
        files[name], printed[name] = (metadata, Image.open(file).tobytes()), capsys.readouterr()
    assert files["en"] == files["ja"]
    assert not JAPANESE.search(printed["en"].out)
    assert "セーフティチェッカー" in printed["ja"].out
    assert "ステップ" in printed["ja"].out
    assert "モデルの知らない文字" in printed["ja"].err


@pytest.mark.parametrize(("setting", "sentence"), [(None, "64 to 1024 are allowed"), ("ja", "64 から 1024 まで")])
def test_a_server_answers_in_the_language_of_its_setting_and_logs_in_english(
    tiny_folder, monkeypatch, capsys, setting, sentence
):
    monkeypatch.setenv("LANG", "ja_JP.UTF-8")
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    monkeypatch.delenv("JSD_LANG")
    if setting:
        monkeypatch.setenv("JSD_LANG", setting)
    runpy.run_path(predict.__file__)  # as Cog does at the start of a server
    parameters = inspect.signature(predict.Predictor.predict).parameters
    inputs = {name: parameter.default.default for name, parameter in parameters.items() if name != "self"}
    inputs |= {"prompt": "猫 𰻞", "num_inference_steps": 1, "width": 64, "height": 64}
    predictor = predict.Predictor()
    predictor.setup()
    try:
        with pytest.raises(InputError, match=sentence):
            asyncio.run(predictor.predict(**inputs | {"width": 63}))
        asyncio.run(predictor.predict(**inputs))
    finally:
        predictor.engine.close()
        predictor.folders.close()
        predictor.slots.close()
    log = capsys.readouterr().out
    assert "safety checker on" in log
    assert "1 character unknown: 𰻞" in log
    assert not JAPANESE.search(log.replace("猫", ""))
