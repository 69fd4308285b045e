"""When a round opens: a pure decision, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.rounds.due import Policy, due
from backend.tables import Round, RoundStatus, Trigger

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
DAILY = timedelta(hours=24)


def last(status: RoundStatus, hours_ago: float) -> Round:
    return Round(status=status, opened_at=NOW - timedelta(hours=hours_ago))


@pytest.mark.parametrize(
    ("last_round", "news", "schedule", "expected"),
    [
        (None, 0, None, Trigger.first),
        (None, 50, DAILY, Trigger.first),
        (last(RoundStatus.opened, 1), 50, None, None),
        (last(RoundStatus.rescored, 100), 50, DAILY, None),
        (last(RoundStatus.done, 1), 9, None, None),
        (last(RoundStatus.done, 1), 10, None, Trigger.annotations),
        (last(RoundStatus.failed, 1), 10, None, Trigger.annotations),
        (last(RoundStatus.done, 100), 9, None, None),
        (last(RoundStatus.done, 23.9), 9, DAILY, None),
        (last(RoundStatus.done, 24), 1, DAILY, Trigger.schedule),
        (last(RoundStatus.done, 24), 0, DAILY, None),  # nothing new: nothing to learn
        (last(RoundStatus.done, 24), 10, DAILY, Trigger.annotations),
    ],
)
def test_due(last_round: Round | None, news: int, schedule: timedelta | None, expected: Trigger | None) -> None:
    assert due(NOW, last_round, news, Policy(10, schedule)) is expected
