"""One thing that is not as it should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from backend.context import Context
from backend.tables import Project


class Severity(StrEnum):
    """error: the loop does not close, or not in our order. warning: it does, and somebody should know."""

    error = "error"
    warning = "warning"


@dataclass(frozen=True)
class Finding:
    """What is wrong (`message`), and what puts it right (`cure`, an order: "create the webhook"). `fix` does it."""

    code: str
    severity: Severity
    message: str
    cure: str
    fix: Callable[[], None] | None = field(default=None, repr=False, compare=False)
    project_id: int | None = None

    @property
    def fixable(self) -> bool:
        return self.fix is not None

    def as_record(self) -> dict[str, Any]:
        return {
            "code": self.code,
            "severity": self.severity.value,
            "project": self.project_id,
            "message": self.message,
            "cure": self.cure,
            "fixable": self.fixable,
        }


@dataclass(frozen=True)
class Wired:
    """What the parts look at: a project as we want it, and whether a round is switching its model version just now."""

    ctx: Context
    project: Project
    switching: bool = False

    def error(self, code: str, message: str, cure: str, fix: Callable[[], None] | None = None) -> Finding:
        return Finding(code, Severity.error, message, cure, fix, self.project.id)

    def warning(self, code: str, message: str, cure: str, fix: Callable[[], None] | None = None) -> Finding:
        return Finding(code, Severity.warning, message, cure, fix, self.project.id)
