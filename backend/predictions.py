"""JOURNEY 1: what Label Studio asks for is answered from stored predictions; only what is missing is computed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

import strategies
from backend import metrics, prompts
from backend.context import Context
from backend.errors import BadImage
from backend.label_studio.cleaning import drawn
from backend.label_studio.errors import ForbiddenImageUrl, ImageTooLarge, LabelStudioRefused
from backend.label_studio.payloads import LabelConfig, PredictRequest, ls_score, parse_label_config, regions
from backend.serving import Served
from backend.store import Session, predictions, projects, publications, rounds
from backend.tables import ModelVersion, Project, Round
from backend.tables import Task as TaskRow
from model.errors import PromptTooLong

if TYPE_CHECKING:
    from model import Segmentation

log = logging.getLogger(__name__)

# Every prediction gets each number that some strategy ranks by, so that a change of strategy asks for no second look:
# the column it is kept in, and the strategy that measures nothing else.
SCORES = {"entropy": ("score", "entropy"), "mutual information": ("mutual_information", "bald")}
FOREGROUND = 0.5  # probability from which a pixel counts as predicted
# A task outside the queue comes after it. Without a score it would come first on one database and last on another.
_LAST = 1.0
UNPUBLISHED = "wardround"


@dataclass(frozen=True)
class Answer:
    """One task's answer: its regions, ready to be spliced into JSON, and its score (higher = ask sooner), if ranked."""

    regions_json: str
    score: float | None


def answer(ctx: Context, request: PredictRequest) -> bytes:
    """The body of `/predict`: one result per task, in order. No serving version yet is an ordinary, empty answer."""
    with ctx.store.read() as s:
        project = projects.get(s, request.project_id)
        version = predictions.serving(s, project.id)
        task_ids = [task.id for task in request.tasks]
        stored = predictions.of_tasks(s, version.id, task_ids) if version else {}
        published = rounds.latest_published(s, project.id)
        ls_scores = _ls_scores(s, published, task_ids)
        hidden = publications.hidden(s, published.id, task_ids) if published else set()
    answers = {task_id: publications.shown(row, hidden) for task_id, row in stored.items()}
    missing = [task_id for task_id in task_ids if task_id not in answers]
    if version is not None and missing:
        answers |= _compute_missing(ctx, project, ctx.serving.load(version), missing)
    metrics.observed_predictions(stored=len(stored), computed=len(answers) - len(stored))
    return _spliced(task_ids, answers, ls_scores, project.published_version or UNPUBLISHED)


def compute(
    ctx: Context,
    project: Project,
    served: Served,
    tasks: Sequence[TaskRow],
    on_task: Callable[[int], None] = lambda _done: None,
    *,
    waited_for: bool = False,
) -> dict[int, Answer]:
    """Predict tasks and store each at once. A task with a broken image gets its problem noted and no prediction.

    With `waited_for`, one pass without chance makes the masks and leaves the score to the next round; else a few draws
    make both. `on_task` hears how many tasks are done. Raises what stops every task, such as an unreachable Label
    Studio.
    """
    n_draws = 0 if waited_for else ctx.settings.n_draws
    with ctx.store.read() as s:
        # A round holds the project as it was when it began; what is asked for now may be something else.
        project = projects.known(s, project.id) or project
    config = parse_label_config(project.label_config)
    answers: dict[int, Answer] = {}
    for done, task in enumerate(tasks, start=1):
        image_sha256 = image_of(ctx, task)
        if image_sha256 is not None:
            try:
                answers[task.id] = _predict(ctx, project, served, config, task, image_sha256, n_draws)
            except PromptTooLong as error:
                _note_problem(ctx, task, error)
        on_task(done)
    return answers


def score_column(strategy: str) -> str | None:
    """Which stored score of a prediction a strategy ranks by; None for one that looks at no score."""
    uncertainty = strategies.get(strategy).uncertainty
    return None if uncertainty is None else SCORES[uncertainty][0]


def image_of(ctx: Context, task: TaskRow) -> str | None:
    """The sha256 of the task's image, fetched on first need; None for a broken image, which the task remembers."""
    if task.image_sha256 and ctx.files.has("images", task.image_sha256):
        return task.image_sha256
    if task.problem:
        return None
    try:
        content = ctx.label_studio.fetch_image(task.image_url, ctx.settings.max_image_bytes, task.id)
        sha256 = ctx.files.put_image(content)
    except (BadImage, ForbiddenImageUrl, ImageTooLarge, LabelStudioRefused) as error:
        if error.retryable:
            raise
        _note_problem(ctx, task, error)
        return None
    with ctx.store.begin() as s:
        projects.change_fetched(s, task, image_sha256=sha256)
    return sha256


def _note_problem(ctx: Context, task: TaskRow, error: Exception) -> None:
    log.warning("task %s is left out: %s", task.id, error)
    with ctx.store.begin() as s:
        projects.change_fetched(s, task, problem=str(error))


def seed_of(version: ModelVersion) -> int:
    """The seed of all draws by one version: every image sees the same noise, so scores differ by what images show."""
    return int.from_bytes(hashlib.sha256(version.checkpoint_sha256.encode()).digest()[:4], "big")


def _predict(
    ctx: Context,
    project: Project,
    served: Served,
    config: LabelConfig,
    task: TaskRow,
    image_sha256: str,
    n_draws: int,
) -> Answer:
    texts = dict(zip(config.labels, prompts.prompts_for(project, task), strict=True))
    image = ctx.files.image(image_sha256)
    [by_label] = served.segmenter.segment_labels([image], texts, n_draws=n_draws, seed=seed_of(served.version))
    found = [by_label[label] for label in config.labels]
    regions_json = orjson.dumps(_regions(ctx, project, config, found)).decode()
    scores = _scores(config.labels, found) if n_draws else {}
    row = {
        "task_id": task.id,
        "model_version_id": served.version.id,
        "regions_json": regions_json,
        "score": None,
        **scores,
        "embedding": found[0].embedding.astype("<f4").tobytes(),
        "created_at": ctx.now(),
    }
    with ctx.store.begin() as s:
        if prompts.still_asked(s, prompts.terms(project), task):
            predictions.add(s, [row])
        else:
            log.info("task %s: its prompt changed while it was predicted; it is predicted anew when needed", task.id)
    return Answer(regions_json, scores.get("score"))


def _scores(labels: Sequence[str], found: Sequence[Segmentation]) -> dict[str, Any]:
    """Columns of a prediction: the image is asked for the label that is least certain, which is its stratum."""
    by_column = {column: [strategies.get(alone).score(one.draws) for one in found] for column, alone in SCORES.values()}
    # The model's own frame decides, not what cleaning leaves of it.
    sees = any((one.draws.mean(0) >= FOREGROUND).any() for one in found)
    least_certain = labels[int(np.argmax(by_column["score"]))]
    best = {column: float(max(scores)) for column, scores in by_column.items()}
    return {**best, "stratum": least_certain if sees else ""}


def _regions(
    ctx: Context, project: Project, config: LabelConfig, found: Sequence[Segmentation]
) -> list[dict[str, Any]]:
    probabilities = {label: one.probability for label, one in zip(config.labels, found, strict=True)}
    masks = drawn(probabilities, exclusive=not project.overlapping, speck_share=ctx.settings.speck_share)
    confidence = {
        label: float(one.probability[masks[label]].mean())
        for label, one in zip(config.labels, found, strict=True)
        if masks[label].any()
    }
    return regions(config, masks, confidence)


def _compute_missing(ctx: Context, project: Project, served: Served, task_ids: Sequence[int]) -> dict[int, str]:
    with ctx.store.read() as s:
        known = projects.tasks(s, task_ids)
    unknown = [task_id for task_id in task_ids if task_id not in known]
    if unknown:
        log.info("tasks %s are not known yet; the next reconciliation brings them", unknown)
    found = compute(ctx, project, served, list(known.values()), waited_for=True)
    return {task_id: answer.regions_json for task_id, answer in found.items()}


def _ls_scores(s: Session, published: Round | None, task_ids: Sequence[int]) -> dict[int, float]:
    """LS scores by the published queue, so that an answer given on request does not disturb its order."""
    if published is None:
        return {}
    size = predictions.queue_size(s, published.id)
    return {task_id: ls_score(rank, size) for task_id, rank in predictions.ranks(s, published.id, task_ids).items()}


def _spliced(
    task_ids: Sequence[int], answers: dict[int, str], ls_scores: dict[int, float], model_version: str
) -> bytes:
    # Region lists are long and finished: building the JSON anew costs a hundred times more than joining it.
    name = orjson.dumps(model_version).decode()
    parts = [
        f'{{"result":{answers.get(task_id, "[]")},"score":{ls_scores.get(task_id, _LAST)},"model_version":{name}}}'
        for task_id in task_ids
    ]
    return ('{"results":[' + ",".join(parts) + "]}").encode()
