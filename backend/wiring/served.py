"""The published predictions in Label Studio: one for each unlabelled task, no more and no less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from backend.label_studio import payloads
from backend.store import predictions, publications, rounds
from backend.wiring.finding import Finding, Wired

# Tasks outside the queue come after it; without a score they would come first on one database and last on another.
_LAST = 1.0
_NAMED = 5


def findings(wired: Wired) -> list[Finding]:
    version = wired.project.published_version
    if version is None or wired.switching:
        return []
    label_studio, project_id = wired.ctx.label_studio, wired.project.id
    if not label_studio.model_versions(project_id).get(version):
        waiting = label_studio.unlabelled_tasks(project_id)
        return [_missing(wired, version, waiting, "predictions-gone")] if waiting else []
    if label_studio.project(project_id).get("model_version") != version:
        return []  # what is there of a version shows only while it is the project's
    found = []
    missing = label_studio.unserved_tasks(project_id)
    if missing:
        found.append(_missing(wired, version, missing, "predictions-missing"))
    surplus = label_studio.surplus_predictions(project_id, version)
    if surplus:
        found.append(_surplus(wired, surplus))
    return found


def _missing(wired: Wired, version: str, task_ids: Sequence[int], code: str) -> Finding:
    named = ", ".join(str(task_id) for task_id in task_ids[:_NAMED]) + (", …" if len(task_ids) > _NAMED else "")
    message = (
        f"{len(task_ids)} tasks of project {wired.project.id} have no prediction of {version} ({named}): Label Studio "
        "serves them at random once nothing else is left"
    )
    cure = "give these tasks their predictions again, those that never were in the queue at its end"
    return wired.error(code, message, cure, lambda: _give(wired, version, task_ids))


def _give(wired: Wired, version: str, task_ids: Sequence[int]) -> None:
    """Push what the round published; a task that is not in its queue gets an empty prediction behind it."""
    with wired.ctx.store.read() as s:
        serving = predictions.serving(s, wired.project.id)
        published = rounds.latest_published(s, wired.project.id)
        stored = predictions.of_tasks(s, serving.id, task_ids) if serving else {}
        ranks = predictions.ranks(s, published.id, task_ids) if published else {}
        size = predictions.queue_size(s, published.id) if published else 0
        hidden = publications.hidden(s, published.id, task_ids) if published else set()
    regions = {task_id: orjson.loads(publications.shown(row, hidden)) for task_id, row in stored.items()}

    def item(task_id: int) -> dict[str, Any]:
        score = payloads.ls_score(ranks[task_id], size) if task_id in ranks else _LAST
        return payloads.prediction(task_id, version, regions.get(task_id, []), score)

    wired.ctx.label_studio.import_predictions(wired.project.id, [item(task_id) for task_id in task_ids])


def _surplus(wired: Wired, surplus: Sequence[int]) -> Finding:
    def delete() -> None:
        for prediction_id in surplus:
            wired.ctx.label_studio.delete_prediction(prediction_id)

    message = (
        f"project {wired.project.id} has {len(surplus)} predictions too many: several of one version for one task, and "
        "their scores are averaged"
    )
    return wired.error("predictions-duplicate", message, "delete all but the oldest of each task", delete)
