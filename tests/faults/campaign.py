"""Every fault by its name, done to a running cluster and judged.

A fault disturbs a round that is under way and leaves all processes running. What must hold afterwards, `verdict`
says. A moment that never came raises TooSlowError, a fault that this machine or stack cannot have NotHereError.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from numpy.random import Generator

from backend.tables import RoundStatus
from tests.faults import disturbing, killing, verdict
from tests.faults.cluster import Cluster
from tests.faults.moments import FAULTS, ViolatedError
from tests.faults.stacks import NotHereError

__all__ = ["FAULTS", "Tally", "disturbing", "killing", "once"]


@dataclass
class Tally:
    """What one fault did to a cluster, over all its times."""

    fault: str
    times: int = 0
    rounds_done: int = 0
    reclaims: int = 0
    lost_annotations: int = 0
    doubled_rounds: int = 0
    doubled_predictions: int = 0
    violations: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def verdict(self) -> str:
        if self.skipped:
            return f"SKIPPED: {self.skipped}"
        return "holds" if not self.violations else f"VIOLATED: {'; '.join(self.violations)}"


def once(cluster: Cluster, name: str, rng: Generator, tally: Tally | None = None) -> Tally:
    """Do one fault to a quiet cluster, wait until it is quiet again, and judge it."""
    tally = tally or Tally(name)
    done_before, reclaims_before = _done(cluster), cluster.watch.reclaims
    try:
        FAULTS[name](cluster, rng)
    except NotHereError as error:
        tally.skipped = str(error)
        return tally
    except ViolatedError as error:
        tally.violations.append(str(error))
    cluster.quiet()
    tally.times += 1
    tally.rounds_done += _done(cluster) - done_before
    tally.reclaims += cluster.watch.reclaims - reclaims_before
    tally.lost_annotations += len(verdict.lost_annotations(cluster))
    tally.doubled_rounds += verdict.doubled_rounds(cluster.rounds(), cluster.watch.most_unfinished)
    tally.doubled_predictions += cluster.server.doubled()
    tally.violations += verdict.violations(cluster)
    if not tally.rounds_done and not tally.violations:
        tally.violations.append("no round was done at all")
    return tally


def _done(cluster: Cluster) -> int:
    return sum(row.status is RoundStatus.done for row in cluster.rounds())
