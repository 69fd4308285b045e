"""Judge the pre-annotations of a queue before people see them: what is their Dice at least, by held-out answers?"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from backend import effort
from backend.errors import DamagedFile, MissingFile
from backend.label_studio.errors import BadMask, MaskSizeMismatch, UnsupportedLabelConfig
from backend.label_studio.fitting import fitting
from backend.label_studio.masks import masks_of
from backend.label_studio.payloads import LabelConfig, parse_label_config
from backend.rounds.job import Job
from backend.store import annotations as answers
from backend.store import predictions
from backend.store.predictions import Scored
from backend.tables import ModelVersion, Prediction, Task
from evidence.errors import TooFewGroups
from evidence.triage import Bound, calibrate
from model import read_mask
from model.errors import ModelError

log = logging.getLogger(__name__)

_AT_ONCE = 50  # predictions in memory: one may be a megabyte

Answer = tuple[Task, Mapping[str, str]]  # a held-out task and the masks it was answered with, label -> sha256


@dataclass(frozen=True)
class Judged:
    """Bounds on Dice by task, and the terms they were found on, which are kept beside the queue.

    terms: level, accept_dice, redraw_dice, n_groups and n_images; or why_not, in words, and then there are no bounds.
    """

    terms: dict[str, Any]
    bounds: dict[int, float] = field(default_factory=dict)


def judge(job: Job, version: ModelVersion | None, stored: Mapping[int, Scored]) -> Judged:
    """A bound for each stored prediction that has a score; none where the held-out answers are too few.

    What is compared with the held-out answers are predictions like those of the pool: of the same version, made with
    the same number of draws, of images it never saw.
    """
    settings = job.ctx.settings
    if not settings.triage:
        return Judged({"why_not": "WARDROUND_TRIAGE is off"})
    if version is None:
        return Judged({"why_not": "no model version serves yet"})
    try:
        bound = _calibrated(job, version)
    except TooFewGroups as error:
        return Judged({"why_not": str(error)})
    terms = {
        "level": settings.triage_level,
        "accept_dice": settings.accept_dice,
        "redraw_dice": settings.redraw_dice,
        "n_groups": bound.n_groups,
        "n_images": bound.n_images,
    }
    scores = {task_id: each.score for task_id, each in stored.items() if each.score is not None}
    found = bound.of(confidence(list(scores.values())))
    return Judged(terms, dict(zip(scores, found.tolist(), strict=True)))


def confidence(scores: Sequence[float]) -> np.ndarray:
    """How sure the model is, in [0, 1], from entropies in nats; (n,) → (n,). `model.metrics.confidence` is the same."""
    return np.clip(1 - np.asarray(scores, dtype=float) / np.log(2), 0, 1)


def _calibrated(job: Job, version: ModelVersion) -> Bound:
    scores: list[float] = []
    dice: list[float] = []
    groups: list[str] = []
    for score, worth, group in _held_out(job, version):
        scores.append(score)
        dice.append(worth)
        groups.append(group)
    row = job.round
    rng = np.random.default_rng([row.project_id, row.number, row.seed])
    return calibrate(confidence(scores), dice, groups, job.ctx.settings.triage_level, rng=rng)


def _held_out(job: Job, version: ModelVersion) -> list[tuple[float, float, str]]:
    """Score, Dice and group of each held-out task that was answered and that the version has scored."""
    with job.ctx.store.read() as s:
        answered = [(task, masks) for _, task, masks in answers.usable(s, job.project.id) if task.held_out]
    config = parse_label_config(job.project.label_config)
    found: list[tuple[float, float, str]] = []
    for start in range(0, len(answered), _AT_ONCE):
        job.claim.report("triage", start, len(answered))
        some = answered[start : start + _AT_ONCE]
        with job.ctx.store.read() as s:
            rows = predictions.of_tasks(s, version.id, [task.id for task, _ in some])
        for task, masks in some:
            row = rows.get(task.id)
            worth = _worth(job, config, row, (task, masks)) if row is not None else None
            if row is not None and row.score is not None and worth is not None:
                found.append((row.score, worth, task.group_key))
    return found


def _worth(job: Job, config: LabelConfig, row: Prediction, answer: Answer) -> float | None:
    """Dice of the whole pre-annotation: of its worst label, 1 where both are empty; None where it cannot be said."""
    task, masks = answer
    files = job.ctx.files
    try:
        before = masks_of(fitting(config, orjson.loads(row.regions_json)), config)
        after = {
            label: read_mask(files.path("masks", sha256), files.max_image_pixels) for label, sha256 in masks.items()
        }
        return min(effort.compare(before, after).values(), default=1.0)
    except (BadMask, MaskSizeMismatch, UnsupportedLabelConfig, MissingFile, DamagedFile, ModelError) as error:
        log.warning("task %s tells nothing of the model's pre-annotations: %s", task.id, error)
        return None
