"""Connecting a Label Studio project: what a lead would click, done once and the same each time."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from backend import annotations, rounds
from backend.context import Context
from backend.errors import BadSettings
from backend.label_studio.payloads import parse_label_config
from backend.settings import cron_expression, time_zone
from backend.store import projects
from backend.store import rounds as rows
from backend.tables import Project

log = logging.getLogger(__name__)

TITLE = "Wardround"
USER = "wardround"
SECRET_HEADER = "X-Wardround-Secret"  # noqa: S105 - the name of the header, not what is in it
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)


@dataclass(frozen=True)
class Connected:
    """What `connect` did: the labels with their prompts, the tasks it knows, their groups, the round it opened."""

    prompts: dict[str, str]
    tasks: int
    groups: int
    held_out: int
    round_id: int | None


@dataclass(frozen=True)
class Timing:
    """When rounds open by the clock. None: as before, and at first as the settings say."""

    schedule: str | None = None
    time_zone: str | None = None

    @classmethod
    def checked(cls, schedule: str | None, zone: str | None) -> Self:
        """BadSettings says what is wrong with either."""
        try:
            return cls(
                None if schedule is None else cron_expression(schedule), None if zone is None else time_zone(zone)
            )
        except ValueError as error:
            raise BadSettings(str(error)) from None


def connect(
    ctx: Context,
    project_id: int,
    prompts: Mapping[str, str],
    group_field: str,
    prompt_field: str,
    timing: Timing = Timing(),
) -> Connected:
    """Connect or re-connect a project. The API must be up, for Label Studio calls it before it answers."""
    ctx.settings.require("public_url", "api_token", "webhook_secret")
    found = ctx.label_studio.project(project_id)
    labels = parse_label_config(found["label_config"]).labels
    unknown = sorted(set(prompts) - set(labels))
    if unknown:
        raise BadSettings(f"prompts for {', '.join(unknown)}, but project {project_id} has {', '.join(labels)}")
    refresh = _fields_change(ctx, project_id, group_field, prompt_field)
    project = _save(ctx, found, prompts, group_field, prompt_field, timing)
    _connect_backend(ctx, project_id)
    _connect_webhook(ctx, project_id)
    ctx.label_studio.update_project(
        project_id,
        sampling="Uncertainty sampling",
        show_collab_predictions=True,
        # Label Studio would ask for predictions while it lists tasks, inside the annotator's request.
        evaluate_predictions_automatically=False,
        # Connecting set it to the backend's title; the queue needs the version that is published.
        model_version=project.published_version or "",
    )
    annotations.reconcile(ctx, project)
    if refresh:
        annotations.read_fields_anew(ctx, project)
    round_id = rounds.open_if_due(ctx, project_id)
    with ctx.store.read() as s:
        tasks = projects.all_tasks(s, project_id)
    return Connected(
        prompts={label: project.prompts.get(label, label) for label in labels},
        tasks=len(tasks),
        groups=len({task.group_key for task in tasks}),
        held_out=sum(task.held_out for task in tasks),
        round_id=round_id,
    )


def _fields_change(ctx: Context, project_id: int, group_field: str, prompt_field: str) -> bool:
    """Whether known tasks must be read anew; BadSettings when that would move the held-out line under a model."""
    with ctx.store.read() as s:
        known = projects.find(s, project_id)
        frozen = rows.latest_selected(s, project_id)
    if known is None or (known.group_field, known.prompt_field) == (group_field, prompt_field):
        return False
    if frozen is not None:
        raise BadSettings(
            f"project {project_id} reads groups from {known.group_field!r} and prompts from {known.prompt_field!r}, "
            f"and round {frozen.number} has trained on that; other fields would leak held-out patients into training. "
            "Connect with the same fields, or a new project with the right ones"
        )
    return True


def _save(
    ctx: Context,
    found: Mapping[str, Any],
    prompts: Mapping[str, str],
    group_field: str,
    prompt_field: str,
    timing: Timing,
) -> Project:
    with ctx.store.begin() as s:
        known = projects.find(s, found["id"])
        project = Project(
            id=found["id"],
            title=found["title"],
            label_config=found["label_config"],
            prompts={**(known.prompts if known else {}), **prompts},
            group_field=group_field,
            prompt_field=prompt_field,
            published_version=known.published_version if known else None,
            # Everything is pulled anew: whatever was missed while it was not connected is found.
            reconciled_until=None,
            reconciled_at=known.reconciled_at if known else None,
            schedule=known.schedule if known and timing.schedule is None else timing.schedule,
            time_zone=known.time_zone if known and timing.time_zone is None else timing.time_zone,
            held_out_share=known.held_out_share if known else ctx.settings.held_out_share,
            connected_at=known.connected_at if known else ctx.now(),
        )
        projects.save(s, project)
        return projects.get(s, project.id)


def _connect_backend(ctx: Context, project_id: int) -> None:
    url, password = ctx.settings.public_url, ctx.settings.api_token.get_secret_value()
    for backend in ctx.label_studio.ml_backends(project_id):
        if backend.get("title") == TITLE:
            ctx.label_studio.delete_ml_backend(backend["id"])
    ctx.label_studio.create_ml_backend(project_id, url, TITLE, USER, password)


def _connect_webhook(ctx: Context, project_id: int) -> None:
    """Our own webhook, with its secret; the one Label Studio made on connecting carries none and is removed."""
    url = f"{ctx.settings.public_url}/webhook"
    for webhook in ctx.label_studio.webhooks(project_id):
        if webhook.get("url", "").rstrip("/") == url:
            ctx.label_studio.delete_webhook(webhook["id"])
    headers = {SECRET_HEADER: ctx.settings.webhook_secret.get_secret_value()}
    ctx.label_studio.create_webhook(project_id, url, headers, ACTIONS)
