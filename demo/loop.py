"""The loop itself, and the proof that it closed: what a person would check by hand after each round."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from demo.annotator import Annotator, Answer
from demo.errors import LoopNotClosed
from demo.processes import Children
from demo.product import Queued, Round, Wardround
from demo.report import Reporter

# A round trains for a minute at most; scoring the pool takes as long again on a slow machine.
ROUND_TIMEOUT_SECONDS = 900.0
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Loop:
    """Drives one connected project through its rounds."""

    product: Wardround
    annotator: Annotator
    project: int
    children: Children
    report: Reporter

    def close(self, n_rounds: int) -> list[Round]:
        """Wait for the first queue, then annotate and wait `n_rounds` times. Raises LoopNotClosed."""
        self.report.step("waiting for the first queue")
        first = self._wait_for(0)
        if first.verdict != "initial":
            raise LoopNotClosed(f"the first round ended with verdict {first.verdict}, not initial")
        self._show()
        submitted = 0
        for number in range(1, n_rounds + 1):
            answers = self._annotate(number)
            submitted += len(answers)
            finished = self._wait_for(number)
            self._show()
            require_trained(finished, submitted)
        return self.product.rounds(self.project)

    def _annotate(self, number: int) -> list[Answer]:
        wanted = self.product.annotations_per_round
        self.report.step(f"round {number}: the annotator takes {wanted} tasks from the label stream")
        done: list[Answer] = []

        def tell(answer: Answer) -> None:
            done.append(answer)
            self.report.now(f"round {number}: annotating, {len(done)} of {wanted}")
            self.children.require_running()

        answers = self.annotator.work(wanted, tell)
        self.report.answers(answers)
        require_parents(answers)
        return answers

    def _wait_for(self, number: int) -> Round:
        started = time.monotonic()
        while (seconds := time.monotonic() - started) < ROUND_TIMEOUT_SECONDS:
            self.children.require_running()
            found = next((row for row in self.product.rounds(self.project) if row.number == number), None)
            if found is not None and found.status == "failed":
                raise LoopNotClosed(f"round {number} failed: {found.error}")
            if found is not None and found.finished:
                return found
            self.report.now(f"round {number}: {_doing(found)}, {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
        raise LoopNotClosed(f"round {number} had not ended after {ROUND_TIMEOUT_SECONDS:.0f} s")

    def _show(self) -> None:
        queue = self.product.queue(self.project)
        self.report.rounds(self.product.rounds(self.project), queue)
        served = self.annotator.next_task()
        require_served(None if served is None else int(served["id"]), queue)


def require_parents(answers: Sequence[Answer]) -> None:
    """Every served task must have shown a pre-annotation that became the annotation's parent."""
    orphans = [answer.task_id for answer in answers if answer.parent_prediction is None]
    if orphans or not answers:
        raise LoopNotClosed(f"annotations without a parent prediction: tasks {orphans or 'none was served'}")


def require_trained(finished: Round, submitted: int) -> None:
    """A round after annotations must know them, have measured the held-out set and come to a verdict."""
    if finished.verdict not in {"promoted", "kept"} or finished.dice is None:
        raise LoopNotClosed(f"round {finished.number} ended with verdict {finished.verdict}, Dice {finished.dice}")
    known = finished.n_labels + finished.n_held_out
    if known != submitted:
        raise LoopNotClosed(f"round {finished.number} knew {known} labels, {submitted} were submitted")


def require_served(served: int | None, queue: Sequence[Queued]) -> None:
    """Label Studio must serve the head of the queue."""
    head = queue[0].task_id if queue else None
    if served != head:
        raise LoopNotClosed(f"Label Studio serves task {served} next, the queue begins with {head}")


def _doing(found: Round | None) -> str:
    if found is None:
        return "not opened yet"
    progress = found.progress or {}
    step, total = progress.get("step", found.status), progress.get("total") or 0
    return f"{step}, {progress['done']} of {total}" if total > 1 else str(step)
