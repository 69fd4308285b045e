"""JOURNEY: find annotations that are likely errors, and put them before a reviewer.

Every annotated image, held out or not, is judged by a model that did not train on its group: K models, each trained on
the other folds from the weights that every project begins from. None of them serves anybody, and none of the project's
own versions judges: they saw the images. What a fold says is kept as soon as it is known, so a search that was stopped
goes on where it was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend import crossfit
from backend.context import Context
from backend.crossfit import Opinion
from backend.errors import TooEarly
from backend.files import writing
from backend.label_studio.payloads import parse_label_config
from backend.predictions import image_of
from backend.prompts import prompt_for
from backend.rounds.lineage import code_version
from backend.rounds.train import data_sha256, speakable
from backend.store import annotations as answers
from backend.store import projects, rounds, suspicions
from backend.tables import Annotation, Project, Role, RoundItem, Task
from backend.wiring import errors_tab
from evidence.errors import TooFewGroups
from evidence.label_errors import Disagreement, folds, suspicion, usual

if TYPE_CHECKING:
    from model import Example, ModelConfig, Segmenter, TrainConfig

log = logging.getLogger(__name__)

MAX_STEPS = 300
"""Optimiser steps of each fold: a model that has seen the others need not be as good as one that serves."""

OnProgress = Callable[[int, int, int], None]
"""Hears fold (from 0), optimiser step and the steps there are at most."""


@dataclass
class _Material:
    """What is judged: an item for each label of each annotation, and why some are left out."""

    items: list[RoundItem] = field(default_factory=list)
    annotations: dict[int, Annotation] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def search(
    ctx: Context,
    project_id: int,
    *,
    n_folds: int = 3,
    max_steps: int = MAX_STEPS,
    on_progress: OnProgress = lambda *_: None,
) -> dict[str, str]:
    """Judge every annotation and store the ranking in place of the last one; returns what was left out, and why.

    Raises TooEarly with fewer groups than folds, NotConnected, and what fetching images or training raises.
    """
    from model import ModelConfig

    with ctx.store.read() as s:
        project = projects.get(s, project_id)
        found = answers.usable(s, project_id)
    config = ModelConfig(backbone=ctx.settings.backbone)
    start = ctx.serving.create(config, seed=project_id)
    material = _material(ctx, project, found)
    material.items, unspoken = speakable(start, material.items)
    examples, fold_of = _examples(ctx, material.items, n_folds, project_id)
    opinions = _opinions(ctx, project_id, start, config, material.items, examples, fold_of, max_steps, on_progress)
    rows = _ranked(ctx, material, opinions, fold_of, [one.group for one in examples])
    with ctx.store.begin() as s:
        suspicions.replace(s, project_id, rows)
    ctx.files.remove_work(_work_name(project_id))
    return material.left_out | unspoken


def listed(ctx: Context, project_id: int, *, unchanged: bool = False) -> list[dict[str, Any]]:
    """What the last search found, the likeliest error first; `unchanged`: only what nobody has touched since."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        found = suspicions.of_project(s, project_id)
    rows = [_entry(ctx, project_id, row, annotation) for row, annotation in found]
    return [row for row in rows if not (unchanged and row["changed"])]


def publish(ctx: Context, project_id: int, most: int) -> int:
    """Show the likeliest errors that nobody has changed since in the tab "Likely errors"; returns how many it holds."""
    rows = [row for row in listed(ctx, project_id, unchanged=True) if row["score"] > 0]
    ids = list(dict.fromkeys(row["annotation_id"] for row in rows))[:most]
    errors_tab.show(ctx, project_id, ids)
    return len(ids)


def _material(ctx: Context, project: Project, found: Sequence[tuple[Annotation, Task, dict[str, str]]]) -> _Material:
    labels = parse_label_config(project.label_config).labels
    material = _Material()
    for annotation, task, masks in found:
        image_sha256 = image_of(ctx, task)
        if image_sha256 is None:
            material.left_out[str(task.id)] = "its image cannot be used"
            continue
        size = ctx.files.image_size(image_sha256)
        if any(ctx.files.mask_size(sha256) != size for sha256 in masks.values()):
            material.left_out[answers.left_out_key(annotation.id)] = "a mask has not the size of its image"
            continue
        material.annotations[annotation.id] = annotation
        for label in labels:
            # A label that was not painted is an answer as well, and may be the error.
            sha256 = masks.get(label) or ctx.files.put_mask(np.zeros(size, dtype=bool))
            material.items.append(_item(project, annotation, task, label, image_sha256, sha256))
    return material


def _item(
    project: Project, annotation: Annotation, task: Task, label: str, image_sha256: str, mask_sha256: str
) -> RoundItem:
    """As a round would train on it, but of no round."""
    return RoundItem(
        annotation_id=annotation.id, label=label, task_id=task.id, role=Role.train, image_sha256=image_sha256,
        mask_sha256=mask_sha256, prompt=prompt_for(project, task, label),
    )  # fmt: skip


def _examples(
    ctx: Context, items: Sequence[RoundItem], n_folds: int, seed: int
) -> tuple[list[Example], NDArray[np.intp]]:
    from model import Example

    with ctx.store.read() as s:
        groups = rounds.groups(s, items)
    try:
        fold_of = folds([groups[item.task_id] for item in items], n_folds, rng=np.random.default_rng(seed))
    except TooFewGroups as error:
        raise TooEarly(str(error)) from None
    files = ctx.files
    examples = [
        Example(
            files.path("images", item.image_sha256), files.path("masks", item.mask_sha256), item.prompt,
            groups[item.task_id],
        )
        for item in items
    ]  # fmt: skip
    return examples, fold_of


def _opinions(
    ctx: Context,
    project_id: int,
    start: Segmenter,
    begun_from: ModelConfig,
    items: Sequence[RoundItem],
    examples: Sequence[Example],
    fold_of: NDArray[np.intp],
    max_steps: int,
    on_progress: OnProgress,
) -> dict[int, Opinion]:
    """Position among the items → what a model says that never saw it; folds judged by a stopped search are kept."""
    from model import TrainConfig

    config = TrainConfig(seed=project_id, max_steps=max_steps, time_limit_seconds=ctx.settings.train_time_limit_seconds)
    key = _key(ctx, items, fold_of, begun_from, config)
    work = ctx.files.work(_work_name(project_id))
    opinions: dict[int, Opinion] = {}
    for fold in range(int(fold_of.max()) + 1):
        path = work / f"{key}-{fold}.json"
        if not path.exists():
            judged = crossfit.judge_fold(
                start, examples, fold_of, fold, config, n_draws=ctx.settings.n_draws,
                on_progress=lambda p, fold=fold: on_progress(fold, p.step, p.max_steps),  # type: ignore[misc]
            )  # fmt: skip
            _write(path, judged)
        opinions |= _read(path)
    return opinions


def _key(
    ctx: Context, items: Sequence[RoundItem], fold_of: NDArray[np.intp], begun_from: ModelConfig, config: TrainConfig
) -> str:
    """Two searches with the same key say the same."""
    who = [(item.annotation_id, item.label) for item in items]
    said = [who, data_sha256(items), fold_of.tolist(), begun_from.to_dict(), config.to_dict(), ctx.settings.n_draws]
    return hashlib.sha256(json.dumps([*said, code_version()]).encode()).hexdigest()[:16]


def _work_name(project_id: int) -> str:
    return f"label-errors-{project_id}"


def _write(path: Path, opinions: dict[int, Opinion]) -> None:
    unfinished = path.with_suffix(".unfinished")
    with writing(path.parent):
        unfinished.write_text(json.dumps({at: dataclasses.asdict(one) for at, one in opinions.items()}))
        unfinished.replace(path)


def _read(path: Path) -> dict[int, Opinion]:
    said = json.loads(path.read_text())
    return {int(at): Opinion(one["confidence"], Disagreement(**one["disagreement"])) for at, one in said.items()}


def _ranked(
    ctx: Context, material: _Material, opinions: dict[int, Opinion], fold_of: NDArray[np.intp], groups: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows, the likeliest error first. Labels differ in how hard they are, so each is measured by itself."""
    now, rows = ctx.now(), []
    for label in dict.fromkeys(item.label for item in material.items):
        places = [at for at, item in enumerate(material.items) if item.label == label]
        said = [opinions[at] for at in places]
        sure = [one.confidence for one in said]
        scores = suspicion([one.disagreement.excess for one in said], sure, [groups[at] for at in places])
        usual_dice = usual([one.disagreement.dice for one in said], sure)
        for at, one, score, normal in zip(places, said, scores.tolist(), usual_dice.tolist(), strict=True):
            annotation = material.annotations[material.items[at].annotation_id]
            evidence = {
                "confidence": one.confidence, "usual_dice": normal, "fold": int(fold_of[at]),
                "updated_at": _moment(annotation), **dataclasses.asdict(one.disagreement),
            }  # fmt: skip
            row = {"annotation_id": annotation.id, "label": label, "score": score}
            rows.append(row | {"evidence": evidence, "found_at": now})
    return sorted(rows, key=lambda row: (-row["score"], -row["evidence"]["excess"], row["annotation_id"]))


def _entry(ctx: Context, project_id: int, row: Any, annotation: Annotation) -> dict[str, Any]:
    said = row.evidence
    return {
        "rank": row.rank,
        "task_id": annotation.task_id,
        "annotation_id": annotation.id,
        "label": row.label,
        "score": row.score,
        "dice": said["dice"],
        "usual_dice": said["usual_dice"],
        "only_model": said["only_model"],
        "only_person": said["only_person"],
        "changed": said["updated_at"] != _moment(annotation),
        "url": f"{ctx.settings.label_studio_url}/projects/{project_id}/data?task={annotation.task_id}",
    }


def _moment(annotation: Annotation) -> str | None:
    return annotation.updated_at.isoformat() if annotation.updated_at else None
