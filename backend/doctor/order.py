"""Whether people answer from the top of the queue: what no setting of Label Studio shows, their answers do."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from statistics import median

from backend.context import Context
from backend.store import answers, rounds
from backend.store.answers import Answered
from backend.tables import Project
from backend.wiring import Finding, Severity

_WINDOW = 12  # the latest answers, so that a cure shows soon
_ENOUGH = 8
# Tasks that stay at the top without being answered: skipped ones, and those that closed browsers still hold.
_SPARE = 8
_PER_PERSON = 2


def findings(ctx: Context, project: Project) -> list[Finding]:
    """A warning when the latest answers to the published queue came from far down it."""
    with ctx.store.read() as s:
        published = rounds.latest_published(s, project.id)
        answered = answers.of_queue(s, published.id) if published else []
    place = usual_place(answered)
    if place is None or place <= _SPARE + _PER_PERSON * len({one.annotator for one in answered}):
        return []
    message = (
        f"the latest answers in project {project.id} did not come from the top of the queue: half of them had "
        f"{place:.0f} tasks or more before them. People open tasks by hand or press 'Label Tasks As Displayed', or "
        "Label Studio serves at random, as it does where a project has two or more ProjectMember rows"
    )
    cure = (
        "press 'Label All Tasks'; where everybody does, leave at most one row of this project_id in the table "
        "projects_projectmember of Label Studio's own database"
    )
    return [Finding("answers-out-of-order", Severity.warning, message, cure, project_id=project.id)]


def usual_place(answered: Sequence[Answered]) -> float | None:
    """How many waiting tasks of the queue stood before the one that was answered: the median of the latest answers.

    Everybody's first answer is left out, for that task may have been open since before the queue. None where too few
    are left to say.
    """
    places: list[int] = []
    done: list[int] = []
    begun: set[int | None] = set()
    for one in answered:
        if one.annotator in begun:
            places.append(one.rank - bisect_left(done, one.rank))
        begun.add(one.annotator)
        insort(done, one.rank)
    latest = places[-_WINDOW:]
    return median(latest) if len(latest) >= _ENOUGH else None
