"""Our own webhook, with its secret; the one Label Studio makes for a model server carries none and is removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.wiring.finding import Finding, Wired

SECRET_HEADER = "X-Wardround-Secret"  # noqa: S105 - the name of the header, not what is in it
ACTIONS = (
    "ANNOTATION_CREATED",
    "ANNOTATIONS_CREATED",
    "ANNOTATION_UPDATED",
    "ANNOTATIONS_DELETED",
    "TASKS_CREATED",
    "TASKS_DELETED",
    "PROJECT_UPDATED",
)


def findings(wired: Wired) -> list[Finding]:
    ours = [hook for hook in wired.ctx.label_studio.webhooks(wired.project.id) if _is_ours(wired, hook)]
    if not ours:
        message = f"project {wired.project.id} has no webhook to us: annotations arrive with the next pull only"
        return [wired.error("webhook-missing", message, "create the webhook", lambda: _create(wired))]
    # The one that needs the least change is kept.
    kept = min(ours, key=lambda hook: (_what_is_wrong(wired, hook) is not None, not _has_header(hook), hook["id"]))
    return _changed(wired, kept) + [_surplus(wired, hook) for hook in ours if hook is not kept]


def remove(wired: Wired) -> None:
    for hook in wired.ctx.label_studio.webhooks(wired.project.id):
        if _is_ours(wired, hook):
            wired.ctx.label_studio.delete_webhook(hook["id"])


def _is_ours(wired: Wired, hook: Mapping[str, Any]) -> bool:
    """It comes to us, or shows our secret: one that goes elsewhere with another secret is another Wardround's."""
    return _url(hook) == _wanted_url(wired) or _shows_secret(wired, hook)


def _shows_secret(wired: Wired, hook: Mapping[str, Any]) -> bool:
    return (hook.get("headers") or {}).get(SECRET_HEADER) == _headers(wired)[SECRET_HEADER]


def _has_header(hook: Mapping[str, Any]) -> bool:
    return SECRET_HEADER in (hook.get("headers") or {})


def _url(hook: Mapping[str, Any]) -> str:
    return str(hook.get("url", "")).rstrip("/")


def _wanted_url(wired: Wired) -> str:
    return f"{wired.ctx.settings.public_url}/webhook"


def _headers(wired: Wired) -> dict[str, str]:
    return {SECRET_HEADER: wired.ctx.settings.webhook_secret.get_secret_value()}


def _what_is_wrong(wired: Wired, hook: Mapping[str, Any]) -> tuple[str, str] | None:
    """Code and words. Values of headers are compared, never said."""
    if _url(hook) != _wanted_url(wired):
        return "webhook-elsewhere", f"goes to {_url(hook)}, not to {_wanted_url(wired)}"
    if not _shows_secret(wired, hook):
        return "webhook-secret", f"does not show WARDROUND_WEBHOOK_SECRET in {SECRET_HEADER}, so we refuse it"
    if not hook.get("is_active", True):
        return "webhook-muted", "is switched off"
    if not hook.get("send_payload", True):
        return "webhook-muted", "sends no content"
    unheard = [] if hook.get("send_for_all_actions") else sorted(set(ACTIONS) - set(hook.get("actions") or ()))
    if unheard:
        return "webhook-muted", f"says nothing of {', '.join(unheard)}"
    return None


def _changed(wired: Wired, hook: Mapping[str, Any]) -> list[Finding]:
    wrong = _what_is_wrong(wired, hook)
    if wrong is None:
        return []

    def update() -> None:
        wired.ctx.label_studio.update_webhook(
            hook["id"], wired.project.id, _wanted_url(wired), _headers(wired), ACTIONS
        )

    code, words = wrong
    return [wired.error(code, f"the webhook of project {wired.project.id} {words}", "set the webhook right", update)]


def _surplus(wired: Wired, hook: Mapping[str, Any]) -> Finding:
    def delete() -> None:
        wired.ctx.label_studio.delete_webhook(hook["id"])

    if _has_header(hook):
        message = f"project {wired.project.id} has a second webhook of ours: every event comes twice"
        return wired.warning("webhook-duplicate", message, "remove the second webhook", delete)
    message = (
        f"project {wired.project.id} has a webhook to us without a secret, as Label Studio makes one for each model "
        "server: submissions wait for an answer that is a refusal"
    )
    return wired.warning("webhook-automatic", message, "remove the webhook without a secret", delete)


def _create(wired: Wired) -> None:
    wired.ctx.label_studio.create_webhook(wired.project.id, _wanted_url(wired), _headers(wired), ACTIONS)
