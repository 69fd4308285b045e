"""JOURNEYS 3 and 4: when a round is due, and how it runs, one file a step.

`machine` knows the order of the steps; `select_training_set`, `train`, `evaluate`, `promote`, `rescore` and
`publish_queue` are the steps in that order; `due` decides when a round opens; `claim` keeps it in one pair of hands;
`control` is for people: cancel, roll back; `rank` and `push` are halves of publishing; `served` watches what Label
Studio makes of it, `forget` deletes what it needs no more; `lineage` and `reproduce` say where a version comes from.
"""

from backend.rounds.control import cancel, roll_back
from backend.rounds.due import open_if_due, open_now, resume_unclaimed, schedule_of
from backend.rounds.forget import forget_some
from backend.rounds.machine import lane_of, run
from backend.rounds.reproduce import reproduce
from backend.rounds.rescore import help_with
from backend.rounds.served import repair, watch_served

__all__ = [
    "cancel", "forget_some", "help_with", "lane_of", "open_if_due", "open_now", "repair", "reproduce",
    "resume_unclaimed", "roll_back", "run", "schedule_of", "watch_served",
]  # fmt: skip
