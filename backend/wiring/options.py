"""The project's own settings, as far as the order of the queue and the annotator's waiting depend on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backend.wiring.finding import Finding, Wired
from backend.wiring.model_server import TITLE

UNCERTAINTY = "Uncertainty sampling"
# As a new project has them.
DEFAULTS: dict[str, Any] = {"sampling": "Sequential sampling"}
_PREFIX = "wardround-"  # of the names rounds publish under


def findings(wired: Wired) -> list[Finding]:
    there = wired.ctx.label_studio.project(wired.project.id)
    found: list[Finding] = []
    if there.get("sampling") != UNCERTAINTY:
        message = f"project {wired.project.id} is served by {there.get('sampling')!r}, not in the order of our queue"
        cure = f"set sampling to {UNCERTAINTY!r}"
        found.append(wired.error("sampling", message, cure, _setting(wired, sampling=UNCERTAINTY)))
    if there.get("show_collab_predictions") is False:
        message = f"project {wired.project.id} shows annotators no predictions, so they draw everything themselves"
        fix = _setting(wired, show_collab_predictions=True)
        found.append(wired.error("predictions-hidden", message, "show predictions to annotators", fix))
    if there.get("evaluate_predictions_automatically"):
        message = f"project {wired.project.id} asks for predictions while it lists tasks, and people wait for that"
        fix = _setting(wired, evaluate_predictions_automatically=False)
        found.append(wired.error("predictions-retrieved", message, "retrieve no predictions automatically", fix))
    if there.get("min_annotations_to_start_training"):
        message = f"project {wired.project.id} starts a training inside the annotator's submission, due or not"
        fix = _setting(wired, min_annotations_to_start_training=0)
        found.append(wired.error("trains-on-submit", message, "start no training on annotation update", fix))
    return found + _model_version(wired, there) + _order(wired, there)


def remove(wired: Wired) -> None:
    """Back to the defaults of a new project, where the value is still ours."""
    there = wired.ctx.label_studio.project(wired.project.id)
    changed = {}
    if there.get("sampling") == UNCERTAINTY:
        changed["sampling"] = DEFAULTS["sampling"]
    version = there.get("model_version") or ""
    if version == TITLE or version.startswith(_PREFIX):
        changed["model_version"] = ""
    if changed:
        wired.ctx.label_studio.update_project(wired.project.id, **changed)


def _model_version(wired: Wired, there: Mapping[str, Any]) -> list[Finding]:
    wanted, served = wired.project.published_version or "", there.get("model_version") or ""
    if wired.switching or served == wanted:
        return []
    if wanted and not wired.ctx.label_studio.model_versions(wired.project.id).get(wanted):
        return []  # nothing to switch to: that its predictions are gone is said by `served`
    right = f"{wanted!r} is published" if wanted else "nothing is published yet"
    message = f"project {wired.project.id} has model version {served!r}, but {right}: tasks come in no order of ours"
    cure = f"set its model version to {wanted!r}"
    return [wired.error("model-version", message, cure, _setting(wired, model_version=wanted))]


def _order(wired: Wired, there: Mapping[str, Any]) -> list[Finding]:
    """What a lead may want, and what it does to the order."""
    overlap = there.get("maximum_annotations") or 1
    if overlap <= 1:
        return []
    message = (
        f"project {wired.project.id} wants {overlap} annotations of each task: Label Studio then serves tasks that "
        "somebody has begun first, at random, and our order only after them"
    )
    return [wired.warning("overlap", message, "set 'Annotations per task' to 1 unless several answers are worth that")]


def _setting(wired: Wired, **values: Any) -> Callable[[], None]:
    def change() -> None:
        wired.ctx.label_studio.update_project(wired.project.id, **values)

    return change
