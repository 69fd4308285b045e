"""Train once, score where asked, and keep both in files named after what they depend on: what is done stays done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import model
from protocols import datasets, results
from protocols.datasets import Choice, Parts
from protocols.results import MEASURES, Outcome


@dataclass(frozen=True)
class Setup:
    """How the models of a table are opened and scored. `label` tells them from others in a few words."""

    label: str
    weights: str | None
    tokenizer: str | None
    n_draws: int
    device: str

    def origin(self) -> model.Source:
        """Where the weights of the backbone come from."""
        return model.Source(self.weights, self.tokenizer)


@dataclass(frozen=True)
class Training:
    """How they are made: both functions take the name of the data set trained on, the latter also the seed."""

    setup: Setup
    model_config: Callable[[str], model.ModelConfig]
    train_config: Callable[[str, int], model.TrainConfig]


@dataclass(frozen=True)
class Target:
    """One test set: the test part of a folder, under the prompts of a choice."""

    folder: Path
    choice: Choice


@dataclass(frozen=True)
class Job:
    """One training, whose choice also says with which seed, and the test sets its model is scored on."""

    source: Path
    choice: Choice
    targets: tuple[Target, ...]


@dataclass(frozen=True)
class Trained:
    """A model that can be scored. `key` names it; `open` loads it; the rest is as in Outcome."""

    key: str
    source: str
    n_train: int
    steps: int | None
    seconds: float | None
    notes: tuple[str, ...]
    open: Callable[[], model.Segmenter]


def is_done(job: Job, training: Training, out: Path) -> bool:
    """Whether the model of the job has been scored on every target, and is not needed any more."""
    source = datasets.name_of(job.source)
    key = results.key_of(_settings(job, training, datasets.read(job.source, job.choice)))
    paths = [_result_path(out, key, source, training.setup, target, _read_test(target)) for target in job.targets]
    return all(path.is_file() for path in paths)


def train(
    job: Job, training: Training, out: Path, hear: Callable[[model.Progress], None], write: bool = True
) -> Trained:
    """The model of a job: found in `out` if it is there, else trained, going on where an interrupted training stopped.

    write: whether this process keeps the files; of several that train together, one does.
    """
    parts = datasets.read(job.source, job.choice)
    settings = _settings(job, training, parts)
    key = results.key_of(settings)
    checkpoint, card, state = (out / "models" / f"{key}{end}" for end in (".safetensors", ".json", ".state"))
    if not (card.is_file() and checkpoint.is_file()):
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        segmenter, took = _fine_tune(job, training, parts, state, hear)
        if write:
            segmenter.save(checkpoint, settings)
            results.write(card, {"settings": settings, **took})
            state.unlink(missing_ok=True)
    took = results.read(card) if write else {"steps": None, "seconds": None}

    def load() -> model.Segmenter:
        return model.Segmenter.load(checkpoint, device=training.setup.device, source=training.setup.origin())

    name = datasets.name_of(job.source)
    return Trained(key, name, len(parts.train), took["steps"], took["seconds"], parts.notes, load)


def _fine_tune(
    job: Job, training: Training, parts: Parts, state: Path, hear: Callable[[model.Progress], None]
) -> tuple[model.Segmenter, dict[str, Any]]:
    # A training that was interrupted just before its end takes no step any more; what it took is not known then.
    took: dict[str, Any] = {"steps": None, "seconds": None}

    def listen(progress: model.Progress) -> None:
        took.update(steps=progress.step, seconds=progress.seconds)
        hear(progress)

    name, seed = datasets.name_of(job.source), job.choice.seed
    start = model.Segmenter.create(training.model_config(name), seed, training.setup.device, training.setup.origin())
    config, validation = training.train_config(name, seed), _validation(job, training, parts)
    trained = model.fine_tune(start, parts.train, config, validation=validation, on_progress=listen, resume_from=state)
    return trained, took


def _validation(job: Job, training: Training, parts: Parts) -> Sequence[model.Example]:
    """The published list is there to choose the best weights by; where the last are kept, it changes nothing."""
    config = training.train_config(datasets.name_of(job.source), job.choice.seed)
    return parts.val if config.keep == "best" else ()


def _settings(job: Job, training: Training, parts: Parts) -> dict[str, Any]:
    """Everything the weights depend on."""
    name = datasets.name_of(job.source)
    return {
        "model": training.model_config(name).to_dict(),
        "training": training.train_config(name, job.choice.seed).to_dict(),
        "weights": training.setup.weights,
        "tokenizer": training.setup.tokenizer,
        "images": fingerprint(parts.train),
        "validation": fingerprint(_validation(job, training, parts)),
    }


def score(trained: Trained, targets: Sequence[Target], setup: Setup, out: Path) -> Iterator[Outcome]:
    """The outcome on each target, found in `out` where it is there. The model is opened only if it is needed."""
    segmenter: model.Segmenter | None = None
    for target in targets:
        parts = _read_test(target)
        path = _result_path(out, trained.key, trained.source, setup, target, parts)
        if not path.is_file():
            segmenter = segmenter or trained.open()
            metrics = model.evaluate(segmenter, parts.test, n_draws=setup.n_draws, seed=target.choice.seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            outcome = _outcome(trained, setup, target, parts, metrics)
            per_image = {"dice_per_image": list(metrics.dice_per_image)}
            results.write(path, {"outcome": dataclasses.asdict(outcome), **per_image})
        yield results.load(path)


def _read_test(target: Target) -> Parts:
    return datasets.read_test(target.folder, target.choice)


def _labels(source: str, setup: Setup, target: Target) -> dict[str, Any]:
    return {
        "model": setup.label,
        "source": source,
        "data": datasets.name_of(target.folder),
        "split": target.choice.split,
        "prompts": target.choice.prompts,
        "percent": target.choice.percent,
        "seed": target.choice.seed,
    }


def _result_path(out: Path, key: str, source: str, setup: Setup, target: Target, parts: Parts) -> Path:
    labels = _labels(source, setup, target)
    depends = {"key": key, "images": fingerprint(parts.test), "n_draws": setup.n_draws}
    return out / "runs" / f"{labels['data']}-{results.key_of(labels | depends)}.json"


def _outcome(trained: Trained, setup: Setup, target: Target, parts: Parts, metrics: model.Metrics) -> Outcome:
    return Outcome(
        **_labels(trained.source, setup, target),
        n_train=trained.n_train,
        n_test=metrics.n_images,
        n_test_groups=datasets.groups_of(parts.test),
        steps=trained.steps,
        seconds=trained.seconds,
        **{name: getattr(metrics, name) for name in MEASURES},
        notes=tuple(dict.fromkeys((*trained.notes, *parts.notes))),
    )


def fingerprint(examples: Sequence[model.Example]) -> str:
    """SHA-256 over names, sizes and prompts: another list or exchanged files give another one."""
    total = hashlib.sha256()
    for example in examples:
        sizes = (example.image.stat().st_size, example.mask.stat().st_size)
        total.update(repr((example.image.name, example.mask.name, sizes, example.prompt)).encode())
    return total.hexdigest()


def file_key(path: Path) -> str:
    """A key for a checkpoint that was given: the SHA-256 of its bytes, shortened."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
