"""JOURNEY 3: runs a round from wherever it stands. The database is the truth; a message only says "look"."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from backend import logs, metrics
from backend.context import Context
from backend.errors import ClaimLost, Interrupted, RoundError, WardroundError
from backend.rounds import evaluate, promote, publish_queue, rescore, select_training_set, train
from backend.rounds.claim import Claim
from backend.rounds.job import Job, Write
from backend.store import projects, rounds
from backend.tables import FINISHED, MOVES, Lane, Round, RoundStatus
from model import ModelError
from strategies import StrategyError

log = logging.getLogger(__name__)

# A round that is handed back rests, longer each time: whatever is down may stay down for hours.
_FIRST_REST_SECONDS = 5.0
_LONGEST_REST_SECONDS = 300.0


@dataclass(frozen=True)
class Step:
    """What follows a status, and the kind of work it is."""

    act: Callable[[Job], Write]
    lane: Lane


STEPS: dict[RoundStatus, Step] = {
    RoundStatus.opened: Step(select_training_set.step, Lane.label_studio),
    RoundStatus.selected: Step(train.step, Lane.training),
    RoundStatus.trained: Step(evaluate.step, Lane.training),
    RoundStatus.evaluated: Step(promote.step, Lane.training),
    RoundStatus.decided: Step(rescore.step, Lane.scoring),
    RoundStatus.rescored: Step(publish_queue.step, Lane.label_studio),
}


def lane_of(row: Round) -> Lane | None:
    """The kind of work a round needs next; None when it is over."""
    return STEPS[row.status].lane if row.status in STEPS else None


def run(ctx: Context, round_id: int, stop: threading.Event | None = None, lane: Lane | None = None) -> bool:
    """Run a round to its end, or to its first step outside `lane`; False when another process has it or it is over.

    Setting `stop` hands the round back at the next report (Interrupted). What stops one attempt without being the
    round's fault, such as an unreachable Label Studio, hands it back too; what would stop every attempt fails it.
    """
    with Claim(ctx, round_id, stop or threading.Event()) as claim, logs.bound(round=round_id):
        if not claim.taken:
            return False
        try:
            while _take_step(ctx, claim, lane):
                pass
        except ClaimLost:
            log.warning("round %s was cancelled, or goes on in another process", round_id)
            return False
        except Interrupted as error:
            _hand_back(ctx, claim, error, forgive=True, counted=False)
            raise
        except Exception as error:
            _after_error(ctx, claim, error)
            raise
        follow(ctx, round_id)
    return True


def follow(ctx: Context, round_id: int) -> None:
    """Nudge the lane of the round's next step; after the last one, whoever deletes what is published no more."""
    with ctx.store.read() as s:
        row = rounds.get(s, round_id)
    lane = lane_of(row)
    if lane is not None:
        ctx.enqueue("run_round", round_id, lane=lane)
    elif row.status is RoundStatus.done:
        ctx.enqueue("forget_versions", row.project_id)


def _take_step(ctx: Context, claim: Claim, lane: Lane | None) -> bool:
    """One step; False when the round has reached its end, or another lane."""
    with ctx.store.read() as s:
        row = rounds.get(s, claim.round_id)
        project = projects.get(s, row.project_id)
    if row.status in FINISHED:
        return False
    step = STEPS[row.status]
    if lane is not None and step.lane is not lane:
        with ctx.store.begin() as s:
            rounds.release(s, row.id, claim.owner)
        return False
    if row.attempts > ctx.settings.max_attempts:
        raise RoundError(
            f"the step after {row.status} crashed {ctx.settings.max_attempts} times; last error: {row.error or 'none'}"
        )
    name = step.act.__module__.rpartition(".")[2]
    ctx.files.require_room(ctx.settings.min_free_disk_bytes)
    log.info("round %s of project %s: %s, next %s", row.number, row.project_id, row.status, name)
    claim.report(name, 0, 1)
    started = time.monotonic()
    try:
        with logs.bound(project=project.id, step=name):
            write = step.act(Job(ctx, claim, project, row))
        with ctx.store.begin() as s:
            values = write(s)
            rounds.advance(s, row.id, claim.owner, row.status, MOVES[row.status], ctx.now(), progress=None, **values)
    except Exception as error:
        metrics.observed_step(name, _outcome(error), time.monotonic() - started)
        raise
    metrics.observed_step(name, "done", time.monotonic() - started)
    return True


def _outcome(error: Exception) -> str:
    if isinstance(error, ClaimLost):
        return "lost"
    return "handed_back" if getattr(error, "retryable", False) else "failed"


def _after_error(ctx: Context, claim: Claim, error: Exception) -> None:
    if getattr(error, "retryable", False):
        _hand_back(ctx, claim, error, forgive=True)
    elif isinstance(error, WardroundError | ModelError | StrategyError):
        log.error("round %s failed: %s", claim.round_id, error)
        with ctx.store.begin() as s:
            rounds.fail(s, claim.round_id, claim.owner, str(error), ctx.now())
    else:
        log.exception("round %s stopped unexpectedly", claim.round_id)
        _hand_back(ctx, claim, error, forgive=False)


def _hand_back(ctx: Context, claim: Claim, error: Exception, *, forgive: bool, counted: bool = True) -> None:
    log.warning("round %s is handed back: %s", claim.round_id, error)
    metrics.observed_hand_back(type(error).__name__)
    with ctx.store.begin() as s:
        earlier = rounds.get(s, claim.round_id).hand_backs
        rounds.hand_back(
            s, claim.round_id, claim.owner, f"{type(error).__name__}: {error}", forgive=forgive, counted=counted,
            # Being asked to stop says nothing against going on at once elsewhere.
            rest_seconds=rest_seconds(earlier) if counted else 0.0,
        )  # fmt: skip


def rest_seconds(hand_backs: int) -> float:
    """How long a round rests that has been handed back so often in a row already."""
    return min(_LONGEST_REST_SECONDS, _FIRST_REST_SECONDS * 2 ** min(hand_backs, 10))
