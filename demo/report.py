"""What the demo shows: where it is, what came of each round, and where to look afterwards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean

from rich.console import Console
from rich.panel import Panel
from rich.status import Status
from rich.table import Table

from demo.annotator import Answer
from demo.label_studio import LabelStudioServer
from demo.product import Queued, Round, Wardround

_QUIET_SECONDS = 10.0
_SHOWN_TASKS = 5


class Reporter:
    """Lines that stay, and a passing one for what goes on now: a spinner on a terminal, else a line now and then."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._started = time.monotonic()
        self._told = 0.0
        self._status: Status | None = None

    def step(self, text: str) -> None:
        """A line that stays, with the time since the start."""
        self.quiet()
        seconds = time.monotonic() - self._started
        self._console.print(f"[dim]{int(seconds) // 60:2d}:{int(seconds) % 60:02d}[/dim]  {text}", soft_wrap=True)
        self._told = time.monotonic()

    def now(self, text: str) -> None:
        """What is being done at this moment."""
        if self._console.is_terminal:
            if self._status is None:
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._told >= _QUIET_SECONDS:
            self.step(f"[dim]{text}[/dim]")

    def quiet(self) -> None:
        """Take the passing line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def answers(self, answers: Sequence[Answer]) -> None:
        """How the annotator fared with the pre-annotations of one round."""
        agreed = [answer.agreement for answer in answers if answer.agreement is not None]
        agreement = f"{fmean(agreed):.2f}" if agreed else "none shown"
        seconds = fmean(answer.lead_time_seconds for answer in answers)
        self.step(
            f"{len(answers)} masks submitted; pre-annotations agreed with them by Dice {agreement}; "
            f"{seconds:.0f} s each (simulated)"
        )

    def rounds(self, rounds: Sequence[Round], queue: Sequence[Queued]) -> None:
        """Every round so far, and what the queue asks for next."""
        self.quiet()
        table = Table("Round", "Labels", "Held-out Dice", "Before", "Verdict", title="Rounds")
        for row in rounds:
            labels = f"{row.n_labels} + {row.n_held_out} held out"
            table.add_row(
                str(row.number), labels, _dice(row.dice), _dice(row.incumbent_dice), row.verdict or row.status
            )
        self._console.print(table)
        ahead = ", ".join(f"{task.task_id} ({task.arm.replace('_', '-')})" for task in queue[:_SHOWN_TASKS])
        self.step(f"next tasks: {ahead or 'none left'}")

    def where_to_look(self, label_studio: LabelStudioServer, product: Wardround, project: int) -> None:
        self.quiet()
        lines = [
            f"Label Studio   {label_studio.url}/projects/{project}",
            f"user           {label_studio.username}",
            f"password       {label_studio.password}",
            "",
            "Open the project and press “Label All Tasks”: the next task is the head of the queue, with the",
            "model's mask drawn over the image. Correct it and submit; after "
            f"{product.annotations_per_round} more a new round begins.",
            "",
            f"Wardround      {product.url}/health",
            f"logs           {product.folder / 'logs'}",
        ]
        self._console.print(Panel("\n".join(lines), title="The loop is running · Ctrl-C stops everything"))

    def failed(self, message: str, logs: dict[str, str]) -> None:
        """What went wrong, and the end of each log."""
        self.quiet()
        for name, end in logs.items():
            self._console.rule(name, style="dim")
            self._console.print(end, markup=False)
        self._console.print("THE LOOP DID NOT CLOSE", style="bold red")
        self._console.print(message, markup=False)


def _dice(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
