"""JOURNEY 3: runs a round from wherever it stands. The database is the truth; a message only says "look"."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backend.context import Context
from backend.errors import ClaimLost, Interrupted, RoundError, WardroundError
from backend.rounds import evaluate, promote, publish_queue, rescore, select_training_set, train
from backend.rounds.claim import Claim
from backend.rounds.job import Job, Write
from backend.store import projects, rounds
from backend.tables import FINISHED, RoundStatus
from model import ModelError
from strategies import StrategyError

log = logging.getLogger(__name__)

Step = Callable[[Job], Write]

# From the status a round has, the step that follows and the status it leads to.
STEPS: dict[RoundStatus, tuple[Step, RoundStatus]] = {
    RoundStatus.opened: (select_training_set.step, RoundStatus.selected),
    RoundStatus.selected: (train.step, RoundStatus.trained),
    RoundStatus.trained: (evaluate.step, RoundStatus.evaluated),
    RoundStatus.evaluated: (promote.step, RoundStatus.decided),
    RoundStatus.decided: (rescore.step, RoundStatus.rescored),
    RoundStatus.rescored: (publish_queue.step, RoundStatus.done),
}


def run(ctx: Context, round_id: int, stop: threading.Event | None = None) -> bool:
    """Run a round to its end; False when another process has it, or it is finished.

    Setting `stop` hands the round back at the next report (Interrupted). What stops one attempt without being the
    round's fault, such as an unreachable Label Studio, hands it back too; what would stop every attempt fails it.
    """
    with Claim(ctx, round_id, stop or threading.Event()) as claim:
        if not claim.taken:
            return False
        try:
            while _take_step(ctx, claim):
                pass
        except ClaimLost:
            log.warning("round %s goes on in another process", round_id)
            return False
        except Interrupted as error:
            _hand_back(ctx, claim, error, forgive=True)
            raise
        except Exception as error:
            _after_error(ctx, claim, error)
            raise
    return True


def _take_step(ctx: Context, claim: Claim) -> bool:
    """One step; False when the round has reached its end."""
    with ctx.store.read() as s:
        row = rounds.get(s, claim.round_id)
        project = projects.get(s, row.project_id)
    if row.status in FINISHED:
        return False
    if row.attempts > ctx.settings.max_attempts:
        raise RoundError(
            f"the step after {row.status} crashed {ctx.settings.max_attempts} times; last error: {row.error or 'none'}"
        )
    step, following = STEPS[row.status]
    log.info("round %s of project %s: %s, next %s", row.number, row.project_id, row.status, following)
    claim.report(step.__module__.rpartition(".")[2], 0, 1)
    write = step(Job(ctx, claim, project, row))
    with ctx.store.begin() as s:
        values = write(s)
        rounds.advance(s, row.id, claim.owner, row.status, following, ctx.now(), progress=None, **values)
    return True


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


def _hand_back(ctx: Context, claim: Claim, error: Exception, *, forgive: bool) -> None:
    log.warning("round %s is handed back: %s", claim.round_id, error)
    with ctx.store.begin() as s:
        rounds.release(s, claim.round_id, claim.owner, f"{type(error).__name__}: {error}", forgive=forgive)
