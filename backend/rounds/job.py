"""What a step of a round has in its hand, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.context import Context
from backend.rounds.claim import Claim
from backend.store import Session
from backend.tables import Project, Round

# What a step wants written, in one short transaction with the move to the next status: it gets the session and
# returns columns of the round. Everything slow has happened before.
Write = Callable[[Session], dict[str, Any]]


@dataclass(frozen=True)
class Job:
    """One step's view of its round: rows as they were when the step began."""

    ctx: Context
    claim: Claim
    project: Project
    round: Round


def nothing(_s: Session) -> dict[str, Any]:
    """The write of a step that found nothing to do."""
    return {}
