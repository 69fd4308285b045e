"""What leads and scripts read of rounds, versions and queues: plain dictionaries for the CLI and the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.context import Context
from backend.rounds import lane_of, schedule_of
from backend.store import Session, predictions, projects, publications, rounds, workers
from backend.tables import FINISHED, ModelVersion, Query, Role, Round, RoundItem
from evidence.triage import verdict

# A worker that has not spoken for so many ticks is gone, or cannot reach the database.
_TICKS_TO_SILENCE = 4


def rounds_of(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    """One entry a round of the project, oldest first."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        rows = rounds.of_project(s, project_id)
        counts = rounds.count_tasks(s, [row.id for row in rows])
        return [_summary(row, counts) for row in rows]


def round_in_full(ctx: Context, round_id: int) -> dict[str, Any]:
    """A round with its evaluation, what it left out, its lineage and the masks it trained on."""
    with ctx.store.read() as s:
        row = rounds.get(s, round_id)
        items = rounds.items(s, round_id)
        candidate = predictions.version(s, row.candidate_id) if row.candidate_id else None
        incumbent = predictions.version(s, row.incumbent_id) if row.incumbent_id else None
        return _summary(row, rounds.count_tasks(s, [round_id])) | {
            "project_id": row.project_id,
            "strategy": row.strategy,
            "seed": row.seed,
            "claim": row.claim,
            "silent_seconds": rounds.silent_seconds(s, round_id, ctx.settings.lease_seconds),
            "attempts": row.attempts,
            "hand_backs": row.hand_backs,
            "candidate": _version(candidate),
            "incumbent": _version(incumbent),
            "evaluation": row.evaluation,
            "items": [_item(item) for item in items],
        }


def versions_of(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    """One entry a model version, oldest first: the round that trained it, its verdict, its parent's number."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        rows = predictions.versions(s, project_id)
        numbers = {row.id: row.number for row in rows}
        trained_by = {row.id: rounds.of_version(s, row.id) for row in rows}
    return [_of_version(ctx, row, trained_by[row.id], numbers) for row in rows]


def queue_of(ctx: Context, project_id: int) -> list[dict[str, Any]]:
    """The published queue as it stands: tasks that nobody has answered yet, in the order they are served."""
    with ctx.store.read() as s:
        projects.get(s, project_id)
        published = rounds.latest_published(s, project_id)
        if published is None:
            return []
        waiting = {task.id for task in projects.unlabelled_tasks(s, project_id)}
        terms = _terms(s, published)
        return [_place(row, terms) for row in predictions.queue(s, published.id) if row.task_id in waiting]


def triage_in_words(ctx: Context, project_id: int) -> str:
    """By what the pre-annotations of the published queue were judged, or why they were not."""
    with ctx.store.read() as s:
        published = rounds.latest_published(s, project_id)
        terms = _terms(s, published) if published else {"why_not": "nothing is published yet"}
    if "level" not in terms:
        return f"pre-annotations were not judged: {terms.get('why_not', 'the queue was made before they could be')}"
    return (
        f"dice_bound holds for {terms['level']:.0%} of images, by {terms['n_images']} answers of {terms['n_groups']} "
        f"held-out groups; accept-check from {terms['accept_dice']}, redraw (nothing is shown) below "
        f"{terms['redraw_dice']}"
    )


def status(ctx: Context) -> dict[str, Any]:
    """What runs now: workers, projects, unfinished rounds, free disk."""
    settings = ctx.settings
    with ctx.store.read() as s:
        known = [(project, rounds.latest(s, project.id)) for project in projects.every(s)]
        alive = [_worker(worker, age, settings.tick_seconds) for worker, age in workers.all_with_age(s)]
        unfinished = [_unfinished(s, row, settings.lease_seconds) for _, row in known if row and _runs(row)]
    return {
        "workers": alive,
        "projects": [
            {
                "id": project.id,
                "title": project.title,
                "pulled_at": project.reconciled_at.isoformat() if project.reconciled_at else None,
                "schedule": " ".join(schedule_of(settings, project)) if schedule_of(settings, project)[0] else None,
                "published_version": project.published_version,
                "queue_problem": project.queue_problem,
                "last_round": last.id if last else None,
            }
            for project, last in known
        ],
        "rounds": unfinished,
        "free_disk_bytes": ctx.files.free_bytes(),
    }


def in_words(found: Mapping[str, Any]) -> str:
    """A round in full, for a person: the items only counted, the card only where it matters."""
    evaluation, candidate = found["evaluation"] or {}, found["candidate"]
    lines = [
        f"round {found['id']}: number {found['number']} of project {found['project_id']}, {found['status']}",
        f"  opened     {found['opened_at']} ({found['trigger']}), finished {found['finished_at'] or 'not yet'}",
        f"  strategy   {found['strategy']}, seed {found['seed']}",
        f"  labels     {found['n_labels']} trained on, {found['n_held_out']} held out, "
        f"{len(found['left_out'])} left out",
    ]
    lines += [f"  left out   task {task_id}: {why}" for task_id, why in found["left_out"].items()]
    if found["progress"]:
        lines.append(f"  now        {_progress_in_words(found['progress'])}; run by {found['claim'] or 'nobody'}")
    if found["error"]:
        lines.append(f"  error      {found['error']}")
    if found["verdict"]:
        lines.append(f"  verdict    {found['verdict']}: {evaluation.get('reason')}")
    if found["difference"] is not None:
        low, high = found["interval"]
        lines.append(f"  Dice       {found['dice']:.3f} against {found['incumbent_dice']:.3f} of the incumbent")
        lines.append(f"  difference {found['difference']:+.3f}, 90 % interval {low:+.3f} to {high:+.3f}")
    for label, one in evaluation.get("per_label", {}).items():
        if one.get("difference") is not None:
            low, high = one["interval"]
            lines.append(f"    {label}: {one['difference']:+.3f} ({low:+.3f} to {high:+.3f})")
    if candidate:
        lines += _lineage_in_words(candidate)
    lines.append(f"  published  {found['published_version'] or 'nothing'}")
    return "\n".join(lines)


def status_in_words(found: Mapping[str, Any]) -> str:
    lines = [f"{found['free_disk_bytes'] / 1e9:.1f} GB free"]
    for worker in found["workers"]:
        word = "alive" if worker["alive"] else f"silent for {worker['silent_seconds']:.0f} s"
        lines.append(f"worker {worker['name']} ({worker['lanes']}; {worker['device']}): {word}")
    if not found["workers"]:
        lines.append("no worker: start one with `wardround worker`")
    for project in found["projects"]:
        schedule = f", schedule {project['schedule']}" if project["schedule"] else ""
        lines.append(
            f"project {project['id']} ({project['title']}): last pull {project['pulled_at'] or 'never'}, "
            f"serves {project['published_version'] or 'nothing'}{schedule}"
        )
        if project["queue_problem"]:
            lines.append(f"  NOT SERVED IN OUR ORDER: {project['queue_problem']}")
    for row in found["rounds"]:
        now = _progress_in_words(row["progress"]) if row["progress"] else f"waits for {row['lane']}"
        lines.append(f"round {row['id']} of project {row['project_id']}: {row['status']}; {now}")
    return "\n".join(lines)


def _progress_in_words(progress: Mapping[str, Any]) -> str:
    epoch = f", epoch {progress['epoch']}" if "epoch" in progress else ""
    eta = f", about {progress['eta_seconds']:.0f} s left" if progress.get("eta_seconds") is not None else ""
    return f"{progress['step']} {progress['done']} of {progress['total']}{epoch}{eta}"


def _lineage_in_words(candidate: Mapping[str, Any]) -> list[str]:
    card = candidate["card"]
    code = card.get("code") or {}
    return [
        f"  version    {candidate['number']}, checkpoint {candidate['checkpoint_sha256'][:12]}, "
        f"{'serving' if candidate['serving'] else 'not serving'}",
        f"  parent     {card.get('parent') or 'none'}; training set {str(card.get('data_sha256'))[:12]}",
        f"  code       wardround {code.get('wardround', '?')}, torch {code.get('torch', '?')}, "
        f"model room {str(code.get('model_sha256', '?'))[:12]}",
    ]


def _terms(s: Session, published: Round) -> dict[str, Any]:
    publication = publications.of_round(s, published.id)
    return (publication.triage if publication else None) or {}


def _place(row: Query, terms: Mapping[str, Any]) -> dict[str, Any]:
    judged = row.dice_bound is not None and "redraw_dice" in terms
    said = verdict(row.dice_bound or 0.0, terms["accept_dice"], terms["redraw_dice"]).value if judged else None
    place = {"task_id": row.task_id, "rank": row.rank, "score": row.score, "arm": row.arm.value}
    return place | {"dice_bound": row.dice_bound, "verdict": said}


def _summary(row: Round, counts: Mapping[tuple[int, Role], int]) -> dict[str, Any]:
    evaluation = row.evaluation or {}
    return {
        "id": row.id,
        "number": row.number,
        "status": row.status.value,
        "trigger": row.trigger.value,
        "verdict": row.verdict.value if row.verdict else None,
        "reason": evaluation.get("reason"),
        "n_labels": counts.get((row.id, Role.train), 0),
        "n_held_out": counts.get((row.id, Role.held_out), 0),
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


def _item(item: RoundItem) -> dict[str, Any]:
    return {
        "task_id": item.task_id,
        "annotation_id": item.annotation_id,
        "label": item.label,
        "role": item.role.value,
        "prompt": item.prompt,
        "mask_sha256": item.mask_sha256,
        "sources": item.sources,
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


def _of_version(
    ctx: Context, row: ModelVersion, trained_by: Round | None, numbers: Mapping[int, int]
) -> dict[str, Any]:
    evaluation = (trained_by and trained_by.evaluation) or {}
    return {
        "number": row.number,
        "serving": row.serving,
        "round": trained_by.id if trained_by else None,
        "verdict": trained_by.verdict.value if trained_by and trained_by.verdict else None,
        "parent": numbers.get(row.parent_id) if row.parent_id else None,
        "dice": evaluation.get("candidate", {}).get("dice"),
        "n_examples": row.card.get("n_examples"),
        "restorable": row.pruned_at is None and ctx.files.has("checkpoints", row.checkpoint_sha256),
        "checkpoint_sha256": row.checkpoint_sha256,
        "created_at": row.created_at.isoformat(),
    }


def _worker(worker: Any, age: float, tick_seconds: float) -> dict[str, Any]:
    return {
        "name": worker.name,
        "lanes": worker.lanes,
        "device": worker.device,
        "version": worker.version,
        "started_at": worker.started_at.isoformat(),
        "silent_seconds": round(age, 1),
        "alive": age < _TICKS_TO_SILENCE * tick_seconds,
    }


def _runs(row: Round) -> bool:
    return row.status not in FINISHED


def _unfinished(s: Session, row: Round, lease_seconds: float) -> dict[str, Any]:
    lane = lane_of(row)
    return {
        "id": row.id,
        "project_id": row.project_id,
        "status": row.status.value,
        "lane": lane.value if lane else None,
        "claim": row.claim,
        "silent_seconds": rounds.silent_seconds(s, row.id, lease_seconds),
        "progress": row.progress,
        "error": row.error,
    }
