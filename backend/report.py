"""What leads and scripts read of rounds and queues: plain dictionaries for the CLI and the API."""

from __future__ import annotations

from typing import Any

from backend.context import Context
from backend.store import Session, predictions, projects, rounds
from backend.tables import ModelVersion, Role, Round


def rounds_of(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    """One entry a round of the project, oldest first."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        return [_summary(s, row) for row in rounds.of_project(s, project_id)]


def round_in_full(ctx: Context, round_id: int) -> dict[str, Any]:
    """A round with its evaluation, what it left out, and the masks it trained on."""
    with ctx.store.read() as s:
        row = rounds.get(s, round_id)
        items = rounds.items(s, round_id)
        candidate = predictions.version(s, row.candidate_id) if row.candidate_id else None
        incumbent = predictions.version(s, row.incumbent_id) if row.incumbent_id else None
        return _summary(s, row) | {
            "strategy": row.strategy,
            "seed": row.seed,
            "candidate": _version(candidate),
            "incumbent": _version(incumbent),
            "evaluation": row.evaluation,
            "items": [
                {
                    "task_id": item.task_id,
                    "annotation_id": item.annotation_id,
                    "label": item.label,
                    "role": item.role.value,
                    "prompt": item.prompt,
                    "mask_sha256": item.mask_sha256,
                }
                for item in items
            ],
        }


def queue_of(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    """The published queue as it stands: tasks that nobody has answered yet, in the order they are served."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        published = rounds.latest_published(s, project_id)
        if published is None:
            return []
        waiting = {task.id for task in projects.unlabelled_tasks(s, project_id)}
        return [
            {"task_id": row.task_id, "rank": row.rank, "score": row.score, "arm": row.arm.value}
            for row in predictions.queue(s, published.id)
            if row.task_id in waiting
        ]


def _summary(s: Session, row: Round) -> dict[str, Any]:
    evaluation = row.evaluation or {}
    return {
        "id": row.id,
        "number": row.number,
        "status": row.status.value,
        "trigger": row.trigger.value,
        "verdict": row.verdict.value if row.verdict else None,
        "reason": evaluation.get("reason"),
        "n_labels": rounds.count_tasks(s, row.id, Role.train),
        "n_held_out": rounds.count_tasks(s, row.id, Role.held_out),
        "dice": evaluation.get("candidate", {}).get("dice"),
        "incumbent_dice": evaluation.get("incumbent", {}).get("dice"),
        "difference": evaluation.get("difference"),
        "interval": evaluation.get("interval"),
        "published_version": row.published_version,
        "left_out": row.left_out or {},
        "progress": row.progress,
        "error": row.error,
        "opened_at": row.opened_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
    }


def _version(row: ModelVersion | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "number": row.number,
        "parent_id": row.parent_id,
        "checkpoint_sha256": row.checkpoint_sha256,
        "serving": row.serving,
        "card": row.card,
    }
