"""When a round opens: a pure decision, as tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backend.rounds.due import Policy, due, last_slot
from backend.store.annotations import News
from backend.tables import Round, RoundStatus, Trigger

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SECONDS = timedelta(seconds=1)
POLICY = Policy(annotations=10, debounce=30 * SECONDS, failure_pause=timedelta(hours=2))


def last(status: RoundStatus, hours_ago: float) -> Round:
    ended = NOW - timedelta(hours=hours_ago) if status is RoundStatus.failed else None
    return Round(status=status, opened_at=NOW - timedelta(hours=hours_ago), finished_at=ended)


def news(count: int, *, quiet: float = 3600, since_nth: float = 3600, before_slot: int = 0) -> News:
    """`count` new annotations, the newest so many seconds ago, the tenth (if any) so many."""
    nth = NOW - since_nth * SECONDS if count >= POLICY.annotations else None
    return News(count, NOW - quiet * SECONDS if count else None, nth, before_slot)


DONE = last(RoundStatus.done, 30)
SLOT = NOW - timedelta(hours=10)


@pytest.mark.parametrize(
    ("last_round", "fresh", "slot", "expected"),
    [
        (None, news(0), None, Trigger.first),
        (None, news(50), SLOT, Trigger.first),
        (last(RoundStatus.opened, 1), news(50), None, None),
        (last(RoundStatus.rescored, 100), news(50, before_slot=50), SLOT, None),
        # so many annotations
        (DONE, news(9), None, None),
        (DONE, news(10), None, Trigger.annotations),
        (last(RoundStatus.cancelled, 1), news(10), None, Trigger.annotations),
        # once they pause, or will not pause
        (DONE, news(10, quiet=29, since_nth=29), None, None),
        (DONE, news(10, quiet=30, since_nth=30), None, Trigger.annotations),
        (DONE, news(500, quiet=1, since_nth=299), None, None),
        (DONE, news(500, quiet=1, since_nth=300), None, Trigger.annotations),
        # a failed round is not tried again at once
        (last(RoundStatus.failed, 1.9), news(10), None, None),
        (last(RoundStatus.failed, 1.9), news(3, before_slot=3), NOW - timedelta(hours=1), None),
        (last(RoundStatus.failed, 2), news(10), None, Trigger.annotations),
        # the schedule
        (DONE, news(1, before_slot=1), SLOT, Trigger.schedule),
        (DONE, news(1, before_slot=0), SLOT, None),  # it came after the slot: the next one is for it
        (DONE, news(0), SLOT, None),  # nothing new: nothing to learn
        (last(RoundStatus.done, 9), news(1, before_slot=1), SLOT, None),  # this slot has had its round
        (DONE, news(10, before_slot=10), SLOT, Trigger.annotations),
        (DONE, news(9, quiet=1, before_slot=9), SLOT, Trigger.schedule),  # a schedule is a time, not a pause
    ],
)
def test_due(last_round: Round | None, fresh: News, slot: datetime | None, expected: Trigger | None) -> None:
    assert due(NOW, last_round, fresh, slot, POLICY) is expected


LONG_AGO = NOW - timedelta(days=40)


@pytest.mark.parametrize(
    ("expression", "zone", "since", "now", "expected"),
    [
        ("", "UTC", LONG_AGO, NOW, None),
        ("0 2 * * *", "UTC", LONG_AGO, NOW, datetime(2026, 3, 2, 2, tzinfo=UTC)),
        ("0 12 * * *", "UTC", LONG_AGO, NOW, NOW),  # to the minute
        ("1 12 * * *", "UTC", LONG_AGO, NOW, datetime(2026, 3, 1, 12, 1, tzinfo=UTC)),
        ("0 2 * * *", "Europe/Zurich", LONG_AGO, NOW, datetime(2026, 3, 2, 1, tzinfo=UTC)),
        ("0 2 * * *", "America/New_York", LONG_AGO, NOW, datetime(2026, 3, 2, 7, tzinfo=UTC)),
        ("0 2 * * 5", "UTC", LONG_AGO, NOW, datetime(2026, 2, 27, 2, tzinfo=UTC)),
        ("0 2 * * *", "UTC", NOW - timedelta(hours=1), NOW, None),  # no slot since
        ("0 2 1 1 *", "UTC", datetime(2020, 1, 1, tzinfo=UTC), NOW, datetime(2026, 1, 1, 2, tzinfo=UTC)),
        # 2:30 does not exist on 29 March 2026 in Zurich; the slot is not lost, and 3:00 local is 1:00 UTC
        ("30 2 * * *", "Europe/Zurich", LONG_AGO, datetime(2026, 3, 29, 12, tzinfo=UTC),
         datetime(2026, 3, 29, 1, tzinfo=UTC)),
        # 2:30 comes twice on 25 October 2026: it is one slot, the first
        ("30 2 * * *", "Europe/Zurich", LONG_AGO, datetime(2026, 10, 25, 12, tzinfo=UTC),
         datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_the_last_slot_of_a_schedule(
    expression: str, zone: str, since: datetime, now: datetime, expected: datetime | None
) -> None:
    assert last_slot(expression, zone, since, now) == expected


def test_a_schedule_missed_for_weeks_opens_one_round() -> None:
    """The machine slept: the latest slot counts, and the round it opens answers for all of them."""
    slept = last(RoundStatus.done, 24 * 30)
    slot = last_slot("0 2 * * *", "UTC", slept.opened_at, NOW)
    assert due(NOW, slept, news(1, before_slot=1), slot, POLICY) is Trigger.schedule
    opened = Round(status=RoundStatus.done, opened_at=NOW)
    later = NOW + timedelta(minutes=1)
    assert last_slot("0 2 * * *", "UTC", opened.opened_at, later) is None
