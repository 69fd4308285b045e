"""Everything that can be looked at, and the cures that are ours to apply."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from backend import rounds
from backend.context import Context
from backend.doctor import access, project
from backend.errors import WardroundError
from backend.store import projects
from backend.wiring import Finding

# A cure may bring to light what another finding hid.
_PASSES = 3


@dataclass(frozen=True)
class Examination:
    """What is wrong, what could not be looked at, and, after `fix`, what was put right and what would not be."""

    findings: list[Finding]
    unchecked: list[str]
    fixed: list[Finding] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # code -> why its cure failed

    def as_record(self) -> dict[str, Any]:
        return {
            "findings": [finding.as_record() for finding in self.findings],
            "unchecked": self.unchecked,
            "fixed": [finding.as_record() for finding in self.fixed],
            "failed": self.failed,
        }


def examine(ctx: Context, project_id: int | None = None) -> Examination:
    """Look at one project, or at all that are connected, and at what they stand on."""
    with ctx.store.read() as s:
        connected = [row.id for row in projects.every(s)]
    wanted = connected if project_id is None else [project_id]
    looked = access.look(ctx, wanted)
    found = list(looked.findings)
    if looked.label_studio_answers:
        for each in wanted:
            found += project.findings(ctx, each)
    return Examination(found, looked.unchecked)


def fix(ctx: Context, project_id: int | None = None) -> Examination:
    """Apply every cure that is ours to apply, and look again."""
    found = examine(ctx, project_id)
    fixed: list[Finding] = []
    failed: dict[str, str] = {}
    for _ in range(_PASSES):
        curable = [finding for finding in found.findings if finding.fixable and finding.code not in failed]
        if not curable:
            break
        for finding in curable:
            why = _cure(finding)
            if why is None:
                fixed.append(finding)
            else:
                failed[finding.code] = why
        _look_again_at_the_queue(ctx, curable)
        found = examine(ctx, project_id)
    return Examination(found.findings, found.unchecked, fixed, failed)


def _look_again_at_the_queue(ctx: Context, cured: Iterable[Finding]) -> None:
    """What the last pull saw of a queue is not so any more."""
    for project_id in {finding.project_id for finding in cured if finding.project_id is not None}:
        with suppress(WardroundError):  # then the next pull looks
            rounds.watch_served(ctx, project_id)


def in_words(found: Examination) -> str:
    lines = [f"fixed      {finding.code}: {finding.message}" for finding in found.fixed]
    for finding in found.findings:
        how = f"could not be fixed: {found.failed[finding.code]}" if finding.code in found.failed else ""
        how = how or ("`--fix` does it" if finding.fixable else "")
        lines.append(f"{finding.severity.value:<10} {finding.code}: {finding.message}")
        lines.append(f"{'cure':>10} {finding.cure}" + (f" ({how})" if how else ""))
    lines += [f"unchecked  {what}" for what in found.unchecked]
    return "\n".join(lines if found.findings else [*lines, "nothing is wrong"])


def _cure(finding: Finding) -> str | None:
    """None, or why it could not be done: the other cures are none the worse for it."""
    try:
        if finding.fix is not None:
            finding.fix()
    except WardroundError as error:
        return str(error)
    return None
