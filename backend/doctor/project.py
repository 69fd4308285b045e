"""One project: whether it is connected, and what its wiring says."""

from __future__ import annotations

from collections.abc import Sequence

from backend import wiring
from backend.connect import wired_as
from backend.context import Context
from backend.doctor import order
from backend.label_studio.errors import LabelStudioError, LabelStudioRefused, UnsupportedLabelConfig
from backend.label_studio.label_config import parse_label_config
from backend.store import projects
from backend.wiring import Finding, Severity
from backend.wiring.model_server import is_ours


def findings(ctx: Context, project_id: int) -> list[Finding]:
    """What is wrong with a project, connected or not. Reads only."""
    try:
        there = ctx.label_studio.project(project_id)
    except LabelStudioRefused as error:
        message = f"Label Studio shows no project {project_id}: {error}"
        cure = "check the number; where the project was deleted, disconnect it"
        return [Finding("project-missing", Severity.error, message, cure, project_id=project_id)]
    found = _label_config(project_id, there["label_config"])
    with ctx.store.read() as s:
        project = projects.find(s, project_id)
    if project is None:
        message = f"project {project_id} is not connected: its webhooks are ignored and no round opens"
        cure = f"run `wardround connect {project_id}`"
        return [*found, Finding("not-connected", Severity.error, message, cure, project_id=project_id)]
    found += wiring.findings(wired_as(ctx, project))
    if project.queue_problem and not found:
        message = f"project {project_id} does not serve our queue: {project.queue_problem}"
        cure = f"wait for the next pull, or run `wardround rounds start {project_id}`"
        found.append(Finding("queue-problem", Severity.error, message, cure, project_id=project_id))
    return found + order.findings(ctx, project)


def is_served_to(ctx: Context, project_ids: Sequence[int]) -> bool:
    """Whether Label Studio itself reaches our API where we say it is, by what it says of a model server of ours."""
    for project_id in project_ids:
        try:
            there = ctx.label_studio.ml_backends(project_id)
        except LabelStudioError:
            continue
        ours = [server for server in there if is_ours(server) and server.get("url") == ctx.settings.public_url]
        if any(server.get("state") == "CO" for server in ours):
            return True
    return False


def _label_config(project_id: int, label_config: str) -> list[Finding]:
    try:
        parse_label_config(label_config)
    except UnsupportedLabelConfig as error:
        message = f"the label config of project {project_id} cannot be used, so its masks are not read"
        return [Finding("label-config", Severity.error, message, str(error), project_id=project_id)]
    return []
