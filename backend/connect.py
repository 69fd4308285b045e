"""Connecting a Label Studio project: what a lead would click, done once and the same each time."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from backend import annotations, rounds, wiring
from backend import prompts as asking
from backend.context import Context
from backend.errors import BadSettings, RoundRunning
from backend.label_studio.payloads import parse_label_config
from backend.settings import cron_expression, time_zone
from backend.store import projects
from backend.store import rounds as rows
from backend.tables import Project, RoundStatus
from backend.wiring.finding import Wired

log = logging.getLogger(__name__)

GROUP_FIELD, PROMPT_FIELD = "group", "prompt"
# What a person may want otherwise on connecting again.
_CHOSEN = ("title", "label_config", "prompts", "group_field", "prompt_field", "schedule", "time_zone", "overlapping")


@dataclass(frozen=True)
class Connected:
    """What `connect` did: changes, the labels with their prompts, the tasks it knows, their groups, a round opened."""

    changes: list[str]
    prompts: dict[str, str]
    group_field: str
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
    group_field: str | None = None,
    prompt_field: str | None = None,
    timing: Timing = Timing(),
    overlapping: bool | None = None,
) -> Connected:
    """Connect or re-connect a project. The API must be up, for Label Studio calls it before it answers.

    A field that is None stays as it was, and is the usual one at first. What is right already is not touched.
    Predictions that would turn out otherwise now are forgotten.
    """
    known, wanted = _plan(ctx, project_id, prompts, group_field, prompt_field, timing, overlapping)
    changes = _differences(known, wanted)
    if known is not None and _fields(known) != _fields(wanted):
        # Before the fields are remembered: where this is cut off, it is done again.
        annotations.read_fields_anew(ctx, wanted)
    _save(ctx, known, wanted)
    changes += wiring.put_right(wired_as(ctx, wanted))
    tasks_before = _count_tasks(ctx, project_id)
    annotations.reconcile(ctx, wanted)
    rounds.watch_served(ctx, project_id)
    round_id = _open_round(ctx, known, project_id)
    with ctx.store.read() as s:
        tasks = projects.all_tasks(s, project_id)
    if len(tasks) != tasks_before:
        changes.append(f"import {len(tasks) - tasks_before} tasks with their groups")
    for change in changes:
        log.info("project %s: %s", project_id, change)
    return Connected(
        changes=changes,
        prompts=asking.by_label(wanted),
        group_field=wanted.group_field,
        tasks=len(tasks),
        groups=len({task.group_key for task in tasks}),
        held_out=sum(task.held_out for task in tasks),
        round_id=round_id,
    )


def would_change(
    ctx: Context,
    project_id: int,
    prompts: Mapping[str, str],
    group_field: str | None = None,
    prompt_field: str | None = None,
    timing: Timing = Timing(),
    overlapping: bool | None = None,
) -> list[str]:
    """What `connect` would do, in words; nothing is changed, here or in Label Studio."""
    known, wanted = _plan(ctx, project_id, prompts, group_field, prompt_field, timing, overlapping)
    found = wiring.findings(wired_as(ctx, wanted))
    changes = _differences(known, wanted) + [finding.cure for finding in found if finding.fixable]
    missing = len(ctx.label_studio.task_ids(project_id)) - _count_tasks(ctx, project_id)
    return changes + ([f"import {missing} tasks with their groups"] if missing > 0 else [])


def wired_as(ctx: Context, project: Project) -> Wired:
    """The project as the parts of its wiring look at it."""
    with ctx.store.read() as s:
        last = rows.latest(s, project.id)
    return Wired(ctx, project, switching=last is not None and last.status is RoundStatus.rescored)


def _plan(
    ctx: Context,
    project_id: int,
    prompts: Mapping[str, str],
    group_field: str | None,
    prompt_field: str | None,
    timing: Timing,
    overlapping: bool | None,
) -> tuple[Project | None, Project]:
    """The project as we know it and as it shall be. Raises what speaks against connecting, before anything changes."""
    ctx.settings.require("public_url", "api_token", "webhook_secret")
    found = ctx.label_studio.project(project_id)
    labels = parse_label_config(found["label_config"]).labels
    unknown = sorted(set(prompts) - set(labels))
    if unknown:
        raise BadSettings(f"prompts for {', '.join(unknown)}, but project {project_id} has {', '.join(labels)}")
    with ctx.store.read() as s:
        known = projects.known(s, project_id)
    wanted = _wanted(ctx, found, known, prompts, timing)
    wanted.group_field = group_field or (known.group_field if known else GROUP_FIELD)
    wanted.prompt_field = prompt_field or (known.prompt_field if known else PROMPT_FIELD)
    if overlapping is not None:
        wanted.overlapping = overlapping
    if known is not None and _fields(known) != _fields(wanted):
        _refuse_a_leak(ctx, known)
    return known, wanted


def _wanted(
    ctx: Context, found: Mapping[str, Any], known: Project | None, prompts: Mapping[str, str], timing: Timing
) -> Project:
    """As it was, and as Label Studio and the caller say now; all but the fields of task data."""
    columns = Project.__table__.columns.keys()
    kept: dict[str, Any] = {name: getattr(known, name) for name in columns} if known else {"connected_at": ctx.now()}
    if known is None or known.disconnected_at is not None:
        # Whatever was missed while it was not connected is found: everything is pulled anew.
        kept |= {"reconciled_until": None, "queue_problem": None, "disconnected_at": None}
    elif known.label_config != found["label_config"]:
        kept["reconciled_until"] = None  # each task's image may be another one
    told = {name: found[name] for name in ("id", "title", "label_config")}
    given = {"schedule": timing.schedule, "time_zone": timing.time_zone}
    chosen = {name: value for name, value in given.items() if value is not None}
    return Project(**{"overlapping": True, **kept, **told, **chosen, "prompts": {**kept.get("prompts", {}), **prompts}})


def _save(ctx: Context, known: Project | None, wanted: Project) -> None:
    """Remember the project, and forget the predictions that would turn out otherwise now."""
    with ctx.store.begin() as s:
        projects.save(s, wanted)
        if known is not None:
            asking.forget_outdated(s, wanted.id, asking.terms(known), asking.terms(wanted))


def _refuse_a_leak(ctx: Context, known: Project) -> None:
    """Other fields would move the held-out line under a model that has trained."""
    with ctx.store.read() as s:
        frozen = rows.latest_selected(s, known.id)
    if frozen is not None:
        raise BadSettings(
            f"project {known.id} reads groups from {known.group_field!r} and prompts from {known.prompt_field!r}, "
            f"and round {frozen.number} has trained on that; other fields would leak held-out patients into training. "
            "Connect with the same fields, or a new project with the right ones"
        )


def _open_round(ctx: Context, known: Project | None, project_id: int) -> int | None:
    """A round that is due, or the one that disconnecting called off."""
    with ctx.store.read() as s:
        last = rows.latest(s, project_id)
    left_at = known.disconnected_at if known else None
    if left_at and last and last.status is RoundStatus.cancelled and last.finished_at and last.finished_at >= left_at:
        with suppress(RoundRunning):  # another process connects the same project
            return rounds.open_now(ctx, project_id)
    return rounds.open_if_due(ctx, project_id)


def _fields(project: Project) -> tuple[str, str]:
    return project.group_field, project.prompt_field


def _differences(known: Project | None, wanted: Project) -> list[str]:
    """What changes in our own rows, in words."""
    if known is None:
        return [f"take project {wanted.id} ({wanted.title}) in"]
    again = [] if known.disconnected_at is None else [f"take project {wanted.id} up where it was"]
    changed = [name for name in _CHOSEN if getattr(known, name) != getattr(wanted, name)]
    return again + [f"remember another {name.replace('_', ' ')}" for name in changed]


def _count_tasks(ctx: Context, project_id: int) -> int:
    with ctx.store.read() as s:
        return projects.count_tasks(s, project_id)
