"""All parts together, in the order in which one depends on another."""

from __future__ import annotations

from collections.abc import Callable

from backend.wiring import errors_tab, model_server, options, served, tabs, webhook
from backend.wiring.finding import Finding, Wired

# Connecting a model server makes a webhook and takes the model version; predictions must be there to be switched to.
_PARTS: tuple[Callable[[Wired], list[Finding]], ...] = (
    model_server.findings, webhook.findings, served.findings, options.findings, tabs.findings,
)  # fmt: skip
# One cure may bring to light what another part has to say: the predictions of a version show once it is chosen.
_PASSES = 3


def findings(wired: Wired) -> list[Finding]:
    """Everything that is not as it should be. Reads only."""
    return [finding for part in _PARTS for finding in part(wired)]


def put_right(wired: Wired) -> list[str]:
    """Cure what can be cured, and say what was done; nothing where all is well."""
    done: list[str] = []
    for _ in range(_PASSES):
        before = len(done)
        for part in _PARTS:
            for finding in part(wired):
                if finding.fix is not None:
                    finding.fix()
                    done.append(finding.cure)
        if len(done) == before:
            break
    return done


def remove(wired: Wired) -> None:
    """Take our model server, webhook, tabs and settings out of the project; what others put there stays."""
    for part in (webhook.remove, model_server.remove, tabs.remove, errors_tab.remove, options.remove):
        part(wired)
    webhook.remove(wired)
