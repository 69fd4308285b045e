"""One time round the loop, driven once; the tests look at what it has left behind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from demo.annotator import Answer
from demo.product import Round
from tests.acceptance.product import ANNOTATIONS_PER_ROUND, DEADLINE_SECONDS, Running

# Label Studio tells of an annotation once, waits a second and never tells again: on a busy machine one may be lost,
# and the reconciling pull is there to find it.
_WEBHOOK_SECONDS = 15.0


@dataclass(frozen=True)
class Journey:
    """What was seen on the way.

    `first_queue` and `second_queue` are the queues before and after the round, as `wardround queue --json` prints
    them; `served` the tasks Label Studio served in between; `unaided` the annotations that were in our database
    while nothing but a webhook could have brought them; `opened_unaided` whether the round opened before beat ran;
    `next_task` what Label Studio served after the round.
    """

    first_queue: list[dict[str, Any]]
    served: list[int]
    answers: list[Answer]
    unaided: set[int]
    opened_unaided: bool
    finished: Round
    second_queue: list[dict[str, Any]]
    next_task: dict[str, Any]
    answer_to_next: Answer


def start(running: Running) -> None:
    """The API, a worker, a connected project and its first queue. No beat yet: nobody pulls."""
    running.start("worker")
    running.start("api")  # waits, so the two start side by side
    running.product.connect(running.project.id, running.dataset.prompt)
    running.finished_round(0)


def travel(running: Running) -> Journey:
    """Annotate until a round opens, start beat, see the round through, and take the next task."""
    first_queue = running.queue()
    served, answers, unaided = [], [], set()
    for _ in range(ANNOTATIONS_PER_ROUND):
        task = running.annotator.next_task()
        assert task is not None, "Label Studio serves nothing although nobody has annotated anything"
        served.append(int(task["id"]))
        answers.append(running.annotator.answer(task))
        annotation_id = answers[-1].annotation_id
        if running.seen(partial(running.annotation, annotation_id), _WEBHOOK_SECONDS):
            unaided.add(annotation_id)
    all_came = len(unaided) == len(answers)
    opened_unaided = all_came and running.seen(lambda: running.last_round().number == 1, DEADLINE_SECONDS)
    running.start("beat")
    finished = running.finished_round(1)
    second_queue = running.queue()
    next_task = running.annotator.next_task()
    assert next_task is not None, "Label Studio serves nothing after the round"
    return Journey(
        first_queue, served, answers, unaided, bool(opened_unaided), finished, second_queue, next_task,
        # A task that was served stays with whoever it was served to; answered, it stands in nobody's way.
        answer_to_next=running.annotator.answer(next_task),
    )  # fmt: skip
