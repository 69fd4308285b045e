"""Which text asks the model for a label, and which predictions a change of it makes worthless.

A stored prediction always belongs to the prompts and the label config of now: whatever changes them forgets, in the
same transaction, the predictions that would turn out otherwise, and whoever stores one looks in its own transaction
whether it is still what is asked for. Predictions of every version are forgotten: an old version may serve again.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.label_studio.label_config import Control
from backend.label_studio.payloads import LabelConfig, parse_label_config
from backend.store import Session, predictions, projects
from backend.tables import Project, Task


@dataclass(frozen=True)
class Terms:
    """What of a project decides how a prediction turns out.

    `image_key` is the key of task data that holds the image's URL, `prompts` are those of tasks without a prompt of
    their own, in the order of the labels.
    """

    image_key: str
    to_name: str
    controls: tuple[Control, ...]
    exclusive: bool
    prompts: tuple[str, ...]


def prompt_for(project: Project, task: Task, label: str) -> str:
    """The text for one label. `{label}` is filled in.

    The task's own, else the one given on connecting, else the label config's, else the label's name.
    """
    return _prompt(project, parse_label_config(project.label_config), task.prompt, label)


def prompts_for(project: Project, task: Task) -> list[str]:
    """The text for each label of the project's label config, in its order."""
    config = parse_label_config(project.label_config)
    return [_prompt(project, config, task.prompt, label) for label in config.labels]


def by_label(project: Project) -> dict[str, str]:
    """label → text for tasks without a prompt of their own, in the order of the label config."""
    config = parse_label_config(project.label_config)
    return {label: _prompt(project, config, None, label) for label in config.labels}


def terms(project: Project) -> Terms:
    config = parse_label_config(project.label_config)
    exclusive = not project.overlapping and len(config.labels) > 1
    return Terms(config.image_key, config.to_name, config.controls, exclusive, tuple(by_label(project).values()))


def forget_outdated(s: Session, project_id: int, before: Terms, after: Terms) -> int:
    """Forget the predictions that other terms would make otherwise; returns how many.

    To be called after the change of the project's row, in its transaction: then who stores a prediction waits for us.
    A task whose image is another one now is found by its URL when it is pulled.
    """
    if (before.to_name, before.controls, before.exclusive) != (after.to_name, after.controls, after.exclusive):
        return predictions.forget_all(s, project_id)
    if before.prompts != after.prompts:
        return predictions.forget_all(s, project_id, without_own_prompt=True)
    return 0


def still_asked(s: Session, asked: Terms, task: Task) -> bool:
    """Whether a prediction made on these terms for a task as it was read is what is asked for now.

    Nobody changes either before the transaction ends.
    """
    project, now = projects.held(s, task.project_id), projects.held_task(s, task.id)
    return (
        project is not None
        and now is not None
        and terms(project) == asked
        and (now.prompt, now.image_url) == (task.prompt, task.image_url)
    )


def _prompt(project: Project, config: LabelConfig, own: str | None, label: str) -> str:
    given = own or project.prompts.get(label) or config.prompts.get(label) or label
    return given.replace("{label}", label)
