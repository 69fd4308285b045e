"""Our API as the project's model server (an "ML backend" in Label Studio's words)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.wiring.finding import Finding, Wired

TITLE = "Wardround"
USER = "wardround"
# What Label Studio says of a server that does not answer, or answers with an error.
_DOWN = ("DI", "ER")


def findings(wired: Wired) -> list[Finding]:
    """Label Studio asks every server for its health before it answers, so what it says of them is fresh."""
    there = sorted(wired.ctx.label_studio.ml_backends(wired.project.id), key=lambda server: int(server["id"]))
    ours = [server for server in there if is_ours(server)]
    if not ours:
        missing = f"project {wired.project.id} has no model server of ours: no smart tools, no training by request"
        return [wired.error("backend-missing", missing, "connect Wardround as model server", lambda: _create(wired))]
    found = _duplicates(wired, ours[1:])
    wrong = _what_is_wrong(wired, ours[0])
    if wrong:
        found.append(_changed(wired, ours[0], wrong))
    elif ours[0].get("state") in _DOWN:
        found.append(_down(wired, ours[0]))
    return found + _others(wired, there, ours[0])


def remove(wired: Wired) -> None:
    for server in wired.ctx.label_studio.ml_backends(wired.project.id):
        if is_ours(server):
            wired.ctx.label_studio.delete_ml_backend(server["id"])


def is_ours(server: Mapping[str, Any]) -> bool:
    return server.get("title") == TITLE


def _what_is_wrong(wired: Wired, server: Mapping[str, Any]) -> str:
    """The password cannot be read; where it is wrong, Label Studio says that the server is in error."""
    wanted = {
        "url": wired.ctx.settings.public_url,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": USER,
        "basic_auth_pass_is_set": True,
        "is_interactive": True,
    }
    shown = {name: value.rstrip("/") if isinstance(value, str) else value for name, value in server.items()}
    return ", ".join(f"{name} is {shown.get(name)!r}" for name, value in wanted.items() if shown.get(name) != value)


def _changed(wired: Wired, server: Mapping[str, Any], wrong: str) -> Finding:
    message = f"the model server of project {wired.project.id} is not as it should be: {wrong}"
    return wired.error("backend-changed", message, "set the model server right", lambda: _update(wired, server))


def _down(wired: Wired, server: Mapping[str, Any]) -> Finding:
    why = server.get("error_message") or "no answer to /health"
    return wired.error(
        "backend-down",
        f"Label Studio cannot use Wardround at {wired.ctx.settings.public_url}: {why}",
        "start `wardround api` with the WARDROUND_API_TOKEN of this command, reachable there from Label Studio's host, "
        "and connect the model server again",
        lambda: _update(wired, server),
    )


def _duplicates(wired: Wired, surplus: Sequence[Mapping[str, Any]]) -> list[Finding]:
    if not surplus:
        return []

    def delete() -> None:
        for server in surplus:
            wired.ctx.label_studio.delete_ml_backend(server["id"])

    message = f"project {wired.project.id} has Wardround as model server {len(surplus) + 1} times"
    return [wired.error("backend-duplicate", message, "remove all of these model servers but the first", delete)]


def _others(wired: Wired, there: Sequence[Mapping[str, Any]], ours: Mapping[str, Any]) -> list[Finding]:
    others = [server for server in there if not is_ours(server)]
    if not others:
        return []
    names = ", ".join(f"{server.get('title')!r}" for server in others)
    cure = f"remove {names} in the project's settings, under Model: it is somebody else's to delete"
    if int(others[0]["id"]) < int(ours["id"]):
        message = f"Label Studio uses only the first model server of project {wired.project.id}: {names}, not ours"
        return [wired.error("backend-not-first", message, cure)]
    message = f"project {wired.project.id} has another model server ({names}); it is asked and never used"
    return [wired.warning("backend-other", message, cure)]


def _create(wired: Wired) -> None:
    settings = wired.ctx.settings
    wired.ctx.label_studio.create_ml_backend(
        wired.project.id, settings.public_url, TITLE, USER, settings.api_token.get_secret_value()
    )


def _update(wired: Wired, server: Mapping[str, Any]) -> None:
    settings = wired.ctx.settings
    wired.ctx.label_studio.update_ml_backend(
        server["id"], wired.project.id, settings.public_url, TITLE, USER, settings.api_token.get_secret_value()
    )
