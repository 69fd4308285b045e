"""`python -m protocols` from outside: three commands on the real model, refusals, and what --help teaches."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

import model
from protocols.__main__ import main, parser
from protocols.setups import for_training
from tests.protocols.folders import write_pairs, write_published

QUICK = ["--weights=random", "--steps=2", "--n-draws=1", "--device=cpu"]
pytestmark = pytest.mark.usefixtures("one_thread")

LEAKY = ("train", "train", "train", "test", "val")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_published(root / "Kvasir")
    write_published(root / "ClinicDB")
    write_pairs(root / "discs", [2] * 10, LEAKY)
    return root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_model_trained_in_one_command_is_scored_the_same_by_another(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, target, out = (str(folder / "Kvasir"), str(folder / "ClinicDB"), f"--out={tmp_path / 'out'}")
    designs = "--prompts=original,missing_location"
    assert main(["out-of-distribution", source, target, *QUICK, designs, out]) == 0
    trained = rows(tmp_path / "out" / "out-of-distribution.csv")
    assert {(r["source"], r["data"], r["prompts"]) for r in trained} == {
        ("Kvasir", data, prompts) for data in ("Kvasir", "ClinicDB") for prompts in ("original", "missing_location")
    }
    checkpoint = next((tmp_path / "out" / "models").glob("*.safetensors"))
    again = ["--n-draws=1", "--weights=random", "--device=cpu"]
    assert main(["evaluate", str(checkpoint), source, target, *again, designs, out]) == 0
    given = rows(tmp_path / "out" / "evaluation.csv")
    key = ("data", "prompts", "dice", "nsd_released", "nsd", "hd95", "brier")
    assert sorted([row[k] for k in key] for row in given) == sorted([row[k] for k in key] for row in trained)
    assert f"report: {tmp_path / 'out' / 'evaluation.md'}" in capsys.readouterr().out


def test_a_released_checkpoint_is_opened_as_one_over_the_backbone_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[tuple[object, ...]] = []

    def load(path: Path, backbone: str, device: str, source: model.Source) -> model.Segmenter:
        opened.append((path.name, backbone, device, source.tokenizer))
        return model.Segmenter.create(model.ModelConfig(image_size_px=32), source=model.Source("random"))

    monkeypatch.setattr("model.released.load_released", load)
    checkpoint = tmp_path / "MedCLIPSeg_latest.pth"
    checkpoint.write_bytes(b"weights")
    command = ["evaluate", str(checkpoint), str(folder / "Kvasir"), "--tokenizer=bert", "--n-draws=1", "--device=cpu"]
    assert main([*command, f"--out={tmp_path}"]) == 0
    assert opened == [("MedCLIPSeg_latest.pth", "unimedclip", "cpu", "bert")]
    assert [row["model"] for row in rows(tmp_path / "evaluation.csv")] == ["MedCLIPSeg_latest.pth, 1 draws"]
    assert main([*command, f"--out={tmp_path}"]) == 0
    assert len(opened) == 1, "a score that is there needs no model"


def test_a_grid_that_was_done_in_part_is_completed_and_shows_the_leak(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[int] = []

    def nothing_learnt(start, examples, _config, **_further):
        asked.append(len(examples))
        return start

    monkeypatch.setattr(model, "fine_tune", nothing_learnt)
    command = ["data-efficiency", str(folder / "discs"), *QUICK, f"--out={tmp_path}"]
    assert main([*command, "--percent=50,100"]) == 0
    assert asked == [6, 12]
    assert "leak" not in (tmp_path / "data-efficiency.md").read_text(encoding="utf-8")
    assert main([*command, "--percent=50,100", "--split=published,grouped", "--seeds=0,1"]) == 0
    assert sorted(asked[2:]) == [6, 6, 6, 12, 12, 12]
    assert main([*command, "--percent=100", "--prompt=a disc"]) == 0
    found = rows(tmp_path / "data-efficiency.csv")
    assert len(found) == len(asked) == 9
    assert [r["percent"] for r in found if r["prompts"] == "“a disc”"] == ["100"]
    assert "## The leak" in (tmp_path / "data-efficiency.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["data-efficiency", "{}/nowhere"], "neither pairs.csv nor Prompts_Folder"),
        (["data-efficiency", "{}/discs", "--split=grouped", "--backbone=huge", "--steps=1"], "huge"),
        (["data-efficiency", "{}/discs", "--time-limit=-1"], "time_limit_seconds must be above 0"),
        (["data-efficiency", "{}/Kvasir", "--percent=10"], "no such list"),
        (["out-of-distribution", "{}/Kvasir", "{}/nowhere"], "neither pairs.csv"),
        (["evaluate", "{}/no.pth", "{}/Kvasir"], "no.pth does not exist"),
        (["evaluate", "{}/discs/pairs.csv", "{}/Kvasir", "--device=cpu"], "pairs.csv"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2_before_any_training(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changed: list[str],
    message: str,
):
    monkeypatch.setattr(model, "fine_tune", None)
    assert main([word.format(folder) for word in changed] + [f"--out={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words",
    [
        ["--percent=0"],
        ["--percent=101"],
        ["--percent=ten"],
        ["--split=by-frame"],
        ["--seeds=-1"],
        ["--seeds=,"],
        ["--steps=0"],
        ["--steps=1", "--epochs=1"],
        ["--n-draws=-1"],
        ["--recipe=other"],
    ],
)
def test_an_impossible_option_is_refused_by_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main(["data-efficiency", "discs", *words])
    assert stopped.value.code == 2
    assert words[0].partition("=")[0] in capsys.readouterr().err


def config(*words: str, name: str = "BUSI") -> model.TrainConfig:
    options = parser().parse_args(["data-efficiency", "x", *words])
    return for_training(options, "cpu").train_config(name, 3)


def test_the_length_of_a_training_is_the_published_one_unless_told_otherwise():
    plain = config()
    assert (plain.epochs, plain.max_steps, plain.time_limit_seconds, plain.seed) == (100, None, None, 3)
    assert config(name="eus").epochs == 10
    assert config("--epochs=7", name="EUS").epochs == 7
    assert (config("--steps=50").max_steps, config("--steps=50").epochs) == (50, None)
    limited = config("--time-limit=60")
    assert (limited.epochs, limited.time_limit_seconds) == (100, 60)
    assert config("--recipe=released").keep == "last" and plain.keep == "best"


def test_the_released_recipe_knows_the_data_set_with_another_gate():
    options = parser().parse_args(["data-efficiency", "x", "--recipe=released", "--backbone=unimedclip"])
    made = for_training(options, "cpu").model_config
    assert made("Covid19").gate_init == -0.02 and made("BUSI").gate_init == 0
    assert made("BUSI").backbone == "unimedclip" and made("BUSI").channels == "bgr"


def test_whatever_makes_two_models_different_stands_in_the_label():
    ways = [[], ["--recipe=released"], ["--weights=random"], ["--epochs=3"], ["--steps=3"], ["--time-limit=3"]]
    ways += [["--n-draws=0"], ["--backbone=clip"], ["--tokenizer=x"]]
    labels = [for_training(parser().parse_args(["data-efficiency", "x", *way]), "cpu").setup.label for way in ways]
    assert labels[0] == "tiny, corrected"
    assert len(set(labels)) == len(labels)


def test_help_of_the_whole_names_every_option_and_loads_no_torch():
    program = "import sys, protocols.__main__ as p; p.parser().print_help(); sys.exit('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    for option in ("--percent", "--split", "--seeds", "--prompts", "--prompt", "--time-limit", "--tokenizer"):
        assert option in answer.stdout


@pytest.mark.parametrize("command", ["data-efficiency", "out-of-distribution", "evaluate"])
def test_the_help_of_a_command_explains_the_layouts(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "Prompts_Folder" in text and "pairs.csv" in text
