"""Training and scoring: what is done stays done, what was interrupted goes on, other settings are other runs."""

import dataclasses
import shutil
from pathlib import Path

import pytest

import model
from model import ModelConfig, TrainConfig
from protocols import datasets, results, runs
from protocols.datasets import Choice
from protocols.errors import BadResults
from protocols.runs import Job, Setup, Target, Training
from tests.protocols.folders import write_published

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 4


TRAINING = Training(
    setup=Setup("tiny", weights="random", tokenizer=None, n_draws=2, device="cpu"),
    model_config=lambda _name: ModelConfig(image_size_px=32),
    train_config=lambda _name, seed: TrainConfig(
        seed=seed, max_steps=STEPS, time_limit_seconds=None, batch_size=2, state_interval_seconds=0
    ),
)


def make_job(folder: Path) -> Job:
    write_published(folder)
    return Job(folder, Choice(), (Target(folder, Choice()), Target(folder, Choice(design="missing_location"))))


@pytest.fixture(scope="module")
def finished(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder in which a job is done. Read only: `out` is a copy of it."""
    folder = tmp_path_factory.mktemp("finished")
    run(make_job(folder / "Disc"), TRAINING, folder / "out")
    return folder / "out"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """The job that is done in `out`."""
    return make_job(tmp_path / "Disc")


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The trainings asked for: images learnt from and images for validation. None takes place."""
    asked: list[tuple[int, int]] = []

    def nothing_learnt(start, examples, _config, *, validation, **_further):
        asked.append((len(examples), len(validation)))
        return start

    monkeypatch.setattr(model, "fine_tune", nothing_learnt)
    return asked


def ignore(_progress: model.Progress) -> None:
    pass


def run(job: Job, training: Training, out: Path) -> list[results.Outcome]:
    if not runs.is_done(job, training, out):
        list(runs.score(runs.train(job, training, out, ignore), job.targets, training.setup, out))
    return results.outcomes(out)


def test_one_training_serves_all_its_targets_and_is_what_the_model_room_gives(job: Job, out: Path):
    found = results.outcomes(out)
    assert [(o.model, o.data, o.prompts, o.n_train, o.n_test, o.steps) for o in found] == [
        ("tiny", "Disc", "missing_location", 4, 3, STEPS),
        ("tiny", "Disc", "original", 4, 3, STEPS),
    ]
    assert len(list((out / "models").glob("*.safetensors"))) == 1
    parts = datasets.read(job.source, Choice())
    start = model.Segmenter.create(ModelConfig(image_size_px=32), seed=0, source=model.Source("random"))
    config = TRAINING.train_config("Disc", 0)
    expected = model.evaluate(
        model.fine_tune(start, parts.train, config, validation=parts.val), parts.test, n_draws=2, seed=0
    )
    for measure in results.MEASURES:
        assert getattr(found[1], measure) == pytest.approx(getattr(expected, measure), abs=1e-6), measure


def test_what_is_done_is_not_done_again_not_even_without_the_model(job: Job, out: Path, trainings: list):
    before = results.outcomes(out)
    assert not list((out / "models").glob("*.state")), "the state of training goes when it is over"
    shutil.rmtree(out / "models")
    assert run(job, TRAINING, out) == before
    assert trainings == []


def test_a_lost_score_is_scored_again_with_the_same_model(job: Job, out: Path, trainings: list):
    before = results.outcomes(out)
    next((out / "runs").iterdir()).unlink()
    assert run(job, TRAINING, out) == before
    assert trainings == []


@pytest.mark.parametrize("at", [1, STEPS])
def test_an_interrupted_training_goes_on_to_the_same_result(
    job: Job, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    heard: list[int] = []

    def stop(progress: model.Progress) -> None:
        heard.append(progress.step)
        if len(heard) == at + 1:
            raise KeyboardInterrupt

    interrupted = tmp_path / "interrupted"
    if at < STEPS:
        with pytest.raises(KeyboardInterrupt):
            runs.train(job, TRAINING, interrupted, stop)
    else:
        # Killed when the last state had been written and the checkpoint had not.
        with monkeypatch.context() as patch:
            patch.setattr(model.Segmenter, "save", _full_disk)
            with pytest.raises(OSError, match="disk"):
                runs.train(job, TRAINING, interrupted, stop)
    trained = runs.train(job, TRAINING, interrupted, lambda progress: heard.append(progress.step))
    found = list(runs.score(trained, job.targets, TRAINING.setup, interrupted))
    assert heard.count(1) == 1, "what had been written is not done again"
    assert {o.prompts: o.dice for o in found} == {o.prompts: o.dice for o in results.outcomes(out)}


def _full_disk(*_: object) -> None:
    raise OSError("no space left on disk")


def changed(job: Job, training: Training, what: str) -> tuple[Job, Training]:
    choice, source = job.choice, job.source
    if what == "seed":
        choice = dataclasses.replace(choice, seed=1)
    if what == "percent":
        choice = dataclasses.replace(choice, percent=50)
    if what == "prompt":
        choice = dataclasses.replace(choice, prompt="a disc")
    if what == "steps":
        train_config = training.train_config
        training = dataclasses.replace(
            training, train_config=lambda name, seed: dataclasses.replace(train_config(name, seed), max_steps=2)
        )
    if what == "image":
        image = source / "Train_Folder" / "img" / "train (0).png"
        image.write_bytes(image.read_bytes() + b"\0")
    return Job(source, choice, (Target(source, choice),)), training


@pytest.mark.parametrize("what", ["seed", "percent", "prompt", "steps", "image"])
def test_whatever_the_weights_depend_on_makes_another_run(job: Job, out: Path, trainings: list, what: str):
    assert runs.is_done(job, TRAINING, out)
    other, training = changed(job, TRAINING, what)
    assert not runs.is_done(other, training, out)
    runs.train(other, training, out, ignore)
    assert len(trainings) == 1


def test_the_validation_list_chooses_the_weights_only_where_the_best_are_kept(
    job: Job, trainings: list, tmp_path: Path
):
    for keep in ("best", "last"):
        config = dataclasses.replace(TRAINING.train_config("Disc", 0), keep=keep)
        training = dataclasses.replace(TRAINING, train_config=lambda *_, config=config: config)
        runs.train(job, training, tmp_path / "fresh", ignore)
    assert trainings == [(4, 2), (4, 0)]


def test_two_runs_under_one_label_are_not_averaged(job: Job, out: Path, trainings: list):
    other, training = changed(job, TRAINING, "image")
    with pytest.raises(BadResults, match="the same run on other images"):
        run(other, training, out)


@pytest.mark.parametrize("content", ["", "[1]", '{"outcome": {"dice": 1}}', "{}"])
def test_a_foreign_file_among_the_results_is_refused(tmp_path: Path, content: str):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_text(content, encoding="utf-8")
    with pytest.raises(BadResults, match=r"x\.json"):
        results.outcomes(tmp_path)
