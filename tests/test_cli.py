"""The command line draws pictures and looks after weights. A mistake of the user ends with exit code 2."""

import pytest
from PIL import Image

from jsd import cli, images, manifest, watermark
from tests.fakes import bomb, flip_last_bit
from tests.files import DISPLAY_P3, rgb_profile


@pytest.fixture
def run(tiny_folder, tmp_path, monkeypatch, capsys):
    """A function that runs a command on the tiny model, in an empty folder. It returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    monkeypatch.setenv("JSD_DEVICE", "cpu")

    def run(*argv: str) -> tuple[int, str, str]:
        code = cli.main(argv)
        return code, *capsys.readouterr()

    return run


def test_generate_writes_one_file_with_metadata(run, tmp_path):
    code, out, _ = run("generate", "-i", "prompt=猫の肖像画 油絵", "-i", "seed=1", "-o", "out.png")
    assert code == 0
    assert "out.png: seed 1" in out
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    metadata = images.read_metadata("out.png")
    assert (metadata["prompt"], metadata["seed"], metadata["model"]) == ("猫の肖像画 油絵", 1, "tiny")
    assert Image.open("out.png").size == (64, 64)


def test_generate_draws_the_same_picture_for_the_same_seed(run):
    pictures = []
    for _ in range(2):
        assert run("generate", "-p", "猫", "-i", "seed=5", "-o", "a.png")[0] == 0
        pictures.append(Image.open("a.png").tobytes())
    assert pictures[0] == pictures[1]


def test_generate_takes_integers_that_are_written_with_a_fraction(run):
    assert run("generate", "-p", "猫", "-i", "seed=5.0", "-i", "steps=3e0", "-o", "a.png")[0] == 0
    metadata = images.read_metadata("a.png")
    assert (metadata["seed"], metadata["num_inference_steps"]) == (5, 3)


def test_null_means_the_default_and_in_a_prompt_the_word(run, tmp_path):
    names = ["seed", "scheduler", "num_outputs", "image", "output_format", "prompt_strength"]
    inputs = [word for name in names for word in ("-i", f"{name}=null")]
    code, _, error = run("generate", "-p", "null", *inputs, "-o", "out.webp")
    assert code == 0, error
    assert [path.name for path in tmp_path.iterdir()] == ["out.webp"]
    assert images.read_metadata("out.webp")["prompt"] == "null"


def test_generate_names_unknown_characters(run):
    assert "2 characters unknown: 貓 龘" in run("generate", "-p", "貓と龘の猫")[2]


def test_the_command_line_says_what_was_taken_out_and_the_file_keeps_the_prompt(run):
    code, _, log = run("generate", "-p", "(猫:1.3) --ar 16:9 <lora:\x1b[31m:1>", "-o", "out.png")
    assert code == 0
    assert "prompt, negative_prompt: syntax of other tools was taken out: <lora:\\x1b[31m:1> --ar 16:9 (…:1.3)" in log
    metadata = images.read_metadata("out.png")
    assert metadata["prompt"] == "(猫:1.3) --ar 16:9 <lora:\x1b[31m:1>"
    assert metadata["removed_syntax"] == ["<lora:\x1b[31m:1>", "--ar 16:9", "(…:1.3)"]


def test_generate_numbers_several_pictures(run, tmp_path):
    code, _, _ = run("generate", "-p", "猫", "-i", "num_outputs=2", "-i", "seed=5", "-o", "cat.webp")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cat.0.webp", "cat.1.webp"]
    assert [images.read_metadata(f"cat.{i}.webp")["seed"] for i in range(2)] == [5, 6]


def test_a_picture_with_a_colour_profile_is_read_as_people_see_it(run):
    Image.new("RGB", (1024, 1024), (200, 60, 60)).save("in.png", icc_profile=rgb_profile(DISPLAY_P3))
    assert run("generate", "-p", "猫", "-i", "image=@in.png", "-i", "prompt_strength=0", "-o", "out.png")[0] == 0
    assert Image.open("out.png").getcolors() == [(64 * 64, (217, 42, 52))]


def test_a_size_far_from_the_models_own_is_drawn_with_a_note(run):
    code, _, error = run("generate", "-p", "猫", "-i", "width=256", "-i", "steps=1", "-o", "out.png")
    assert (code, Image.open("out.png").size) == (0, (256, 64))
    assert "width, height: 256 x 64 is far from 64 x 64, the model's own size; expect" in error


def test_the_suffix_of_the_output_chooses_the_format(run):
    assert run("generate", "-p", "猫", "-o", "out.jpeg")[0] == 0
    assert Image.open("out.jpeg").format == "JPEG"
    assert run("generate", "-p", "猫", "-o", "out.jpg", "-i", "output_format=JPEG")[0] == 0
    assert Image.open("out.jpg").format == "JPEG"
    assert run("generate", "-p", "猫", "-i", "output_format=jpeg")[0] == 0
    assert Image.open("output.jpg").format == "JPEG"
    assert run("generate", "-p", "猫", "-i", "output_format=webp")[0] == 0
    assert Image.open("output.webp").format == "WEBP"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-i", "prompt= "], "prompt: ' ' is blank"),
        (["-i", "prompt=" + "猫" * 2001], "prompt: 2001 characters were given; 1 to 2000 are allowed"),
        (["-i", "sampler=DDIM"], "no input called 'sampler'; the inputs are prompt,"),
        (["-i", "steps=5", "-i", "num_inference_steps=5"], "num_inference_steps: given twice"),
        (["-i", "seed"], "name=value is wanted"),
        (["-i", "seed=1", "-i", "seed=2"], "seed: given twice"),
        (["-p", "猫", "-i", "prompt=犬"], "prompt: given twice"),
        (
            ["-i", "seed=-1"],
            "seed: -1 was given; 0 to 9007199254740991 are allowed, because many programs round larger",
        ),
        (["-i", "seed=-1"], "leave seed out for a random one"),
        (["-i", "seed=inf"], "seed: 'inf' was given; an integer is wanted"),
        (["-i", "seed=one"], "seed: 'one' was given; an integer is wanted, or null for the default"),
        (["-i", "seed="], "seed: '' was given; an integer is wanted"),
        (["-i", "num_inference_steps=999"], "num_inference_steps: 999 was given; 1 to 500 are allowed"),
        (["-i", "num_inference_steps=1.5"], "num_inference_steps: '1.5' was given; an integer is wanted"),
        (["-i", "guidance_scale=nan"], "guidance_scale: nan was given; 1 to 20 are allowed"),
        (["-i", "width=100"], "width: 100 was given; this model draws multiples of 16, so take 96 or 112"),
        (["-i", "scheduler=EULER"], "scheduler: 'EULER' was given; allowed are DDIM,"),
        (["-i", "image=@cat.png"], "image: there is no file 'cat.png'"),
        (["-i", "image=cat.png"], "image: 'cat.png' was given; @FILE is wanted"),
        (["-i", f"mask=@{__file__}"], f"mask: {__file__!r}: not a png, jpeg or webp file"),
        (["-i", "prompt_strength=0.5"], "prompt_strength: given without an image"),
        (["-o", "out.gif"], "-o: 'out.gif' was given; a name ending in .png, .jpg, .webp is wanted"),
        (["-o", "out.jpg", "-i", "output_format=png"], "output_format: 'png' was given, but -o ends in .jpg"),
        (["-o", "nowhere/out.png"], "-o: there is no folder"),
    ],
)
def test_a_bad_input_is_refused_by_name_and_nothing_is_written(run, tmp_path, arguments, message):
    code, _, error = run("generate", *arguments)
    assert code == 2
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("JSD_WEIGHTS", "/nowhere", "error: /nowhere: no such folder"),
        ("JSD_DTYPE", "int8", "error: JSD_DTYPE: 'int8' was given; allowed are fp16, bf16, fp32"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(run, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    code, _, error = run("generate", "-p", "猫")
    assert code == 2
    assert message in error


def test_generate_says_which_weights_it_uses(run, tiny_folder):
    assert (
        f"weights {tiny_folder} (tiny), device cpu, fp32 (a small UNet gains nothing from bf16), safety checker on"
        in run("generate", "-p", "猫")[1]
    )


def test_verify_names_the_altered_file(run, tiny_copy):
    code, out, _ = run("weights", "verify", str(tiny_copy))
    assert code == 0
    assert "as in its manifest" in out
    file = tiny_copy / "unet" / "diffusion_pytorch_model.safetensors"
    flip_last_bit(file)
    code, _, error = run("weights", "verify", str(tiny_copy))
    assert code == 2
    assert str(file) in error


def test_list_names_the_folders_and_the_one_in_use(run, tiny_copy, monkeypatch):
    monkeypatch.setattr(manifest, "ROOT", tiny_copy.parent)
    code, out, _ = run("weights", "list")
    assert code == 0
    assert f"{tiny_copy}: " in out
    assert "in use: " in out


def test_detect_watermark_finds_the_mark_only_where_it_is(run, tmp_path):
    plain = Image.new("RGB", (256, 256), "#4682dc")
    plain.save("plain.png")
    watermark.embed(plain).save("marked.png")
    code, out, _ = run("detect-watermark", "marked.png")
    assert code == 0
    assert "marked.png: marked (100% of the bits agree" in out
    code, out, _ = run("detect-watermark", "plain.png", "marked.png")
    assert code == 1
    assert "plain.png: no mark found" in out


def test_detect_watermark_names_the_files_it_can_not_read_and_reads_on(run, tmp_path):
    plain = Image.new("RGB", (256, 256), "#4682dc")
    for name in ("good.png", "good.gif", "good.tiff"):  # of any format that Pillow reads
        plain.save(name)
    Image.new("RGB", (100, 100)).save("small.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "bomb.png").write_bytes(bomb(50_000, 50_000).getvalue())
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:100])
    (tmp_path / "short.png").write_bytes((tmp_path / "good.png").read_bytes()[:14])
    code, out, error = run("detect-watermark", *sorted(path.name for path in tmp_path.iterdir()), "missing.png")
    assert code == 2
    assert [line.partition(":")[0] for line in out.splitlines()] == ["good.gif", "good.png", "good.tiff"]
    broken = "a png file that is broken, cut off or of a rare kind"
    assert error.splitlines() == [
        "error: bomb.png: too many pixels; at most 178956970 are read",
        f"error: cut.png: {broken}",
        f"error: short.png: {broken}",
        "error: small.png: image: 100 x 100 pixels can't hold a mark; 65536 are needed",
        "error: text.png: not a picture of a known format, or a broken one",
        "error: missing.png: can't be opened (No such file or directory)",
    ]
