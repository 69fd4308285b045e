"""JOURNEYS 3 and 4: when a round is due, and how it runs, one file a step.

`machine` knows the order of the steps; `select_training_set`, `train`, `evaluate`, `promote`, `rescore` and
`publish_queue` are the steps in that order; `due` decides when a round opens; `claim` keeps it in one pair of hands.
"""

from backend.rounds.due import open_if_due, open_now, resume_unclaimed
from backend.rounds.machine import run

__all__ = ["open_if_due", "open_now", "resume_unclaimed", "run"]
