"""What people do with rounds: call one off, bring an earlier model version back."""

from __future__ import annotations

import logging
from contextlib import suppress

from backend.context import Context
from backend.errors import CannotRestore, RoundFinished
from backend.rounds.machine import follow
from backend.store import predictions, projects, retention, rounds
from backend.tables import FINISHED, RoundStatus, Trigger, Verdict

log = logging.getLogger(__name__)


def cancel(ctx: Context, round_id: int, why: str = "cancelled by request") -> None:
    """End a round at once; the process that runs it notices within a second and stops. RoundFinished, NotFound."""
    with ctx.store.begin() as s:
        rounds.cancel(s, round_id, why, ctx.now())
    log.warning("round %s: %s", round_id, why)


def roll_back(ctx: Context, project_id: int, number: int) -> int:
    """Have an earlier model version serve again and publish its predictions; returns the id of the round that does.

    It is a round that begins where others have decided: it rescores what the version has not seen and publishes. A
    round that is running is cancelled. NotConnected, NotFound, CannotRestore.
    """
    with ctx.store.read() as s:
        projects.get(s, project_id)
        found = predictions.by_number(s, project_id, number)
    there = ctx.files.has("checkpoints", found.checkpoint_sha256)
    with ctx.store.begin() as s:
        retention.lock_version(s, found.id)
        version = predictions.by_number(s, project_id, number)
        if version.pruned_at is not None or not there:
            raise CannotRestore(
                f"the checkpoint of version {number} was removed to make room (WARDROUND_KEEP_VERSIONS); "
                f"`wardround versions {project_id}` shows which are left"
            )
        serving, last = predictions.serving(s, project_id), rounds.latest(s, project_id)
        if last is not None and last.status not in FINISHED:
            with suppress(RoundFinished):  # it may end this moment
                rounds.cancel(s, last.id, f"cancelled to bring back model version {number}", ctx.now())
        row = rounds.open_round(
            s, project_id, trigger=Trigger.rollback, strategy=ctx.settings.strategy,
            seed=last.number + 1 if last else 0, now=ctx.now(),
            status=RoundStatus.decided, verdict=Verdict.restored,
            candidate_id=version.id, incumbent_id=serving.id if serving else None,
            evaluation={"reason": f"a person chose version {number}"},
        )  # fmt: skip
    log.warning("round %s brings back version %s of project %s", row.number, number, project_id)
    follow(ctx, row.id)
    return row.id
