"""Wardround for those who deploy their model servers with label-studio-ml, under 1.0.9 and under 2.x.

A thin `LabelStudioMLBase` that hands what Label Studio asks and tells on to a running Wardround and needs nothing but
the standard library beside label-studio-ml, because 1.0.9 pins a Flask that no other program can live with.

    WARDROUND_PUBLIC_URL      where Wardround's API answers
    WARDROUND_API_TOKEN       its token, for predictions
    WARDROUND_WEBHOOK_SECRET  its webhook's secret, for events
    MODEL_DIR                 where label-studio-ml keeps its own notes; default: a new folder for temporary files

Start it with `python wardround_model.py --port 9095`, or give the application that `app()` returns to a WSGI server.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from typing import Any

if "MODEL_DIR" not in os.environ:  # read by 2.x while it is imported
    os.environ["MODEL_DIR"] = tempfile.mkdtemp(prefix="wardround-adapter-")

from label_studio_ml import api
from label_studio_ml.model import LabelStudioMLBase

log = logging.getLogger(__name__)

V2 = not hasattr(api, "_manager")  # 2.x makes a model for each request, 1.0.9 keeps one for all projects
# What Wardround listens to. Both versions know ANNOTATION_DELETED instead, which Label Studio does not send.
EVENTS = (
    "ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "TASKS_CREATED",
    "TASKS_DELETED", "PROJECT_UPDATED", "START_TRAINING",
)  # fmt: skip

SETTINGS = ("WARDROUND_PUBLIC_URL", "WARDROUND_API_TOKEN", "WARDROUND_WEBHOOK_SECRET")

_PREDICT_SECONDS = 100.0  # as long as Label Studio waits
_EVENT_SECONDS = 10.0
_SETUP_SECONDS = 2.0  # Label Studio waits for three


class Unreachable(Exception):
    """Wardround did not answer, or refused."""


class Wardround(LabelStudioMLBase):
    """Asks Wardround."""

    def setup(self) -> None:
        """Say which version Wardround serves; 2.x calls this for each new model."""
        try:
            answer = _post("/setup", {"project": str(self.project_id)}, _SETUP_SECONDS)
        except Unreachable as error:
            log.warning("%s", error)
        else:
            self.set("model_version", answer["model_version"])

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **_: Any) -> list[dict[str, Any]]:
        """One prediction a task, in order; `context` is the click or box of a smart tool."""
        found: list[dict[str, Any]] = _post("/predict", self._asked(tasks, context), _PREDICT_SECONDS)["results"]
        return found

    def fit(self, *given: Any, **_: Any) -> None:
        """An event under 2.x: (event, data). Wardround trains when a round is due, and answers at once."""
        if V2:
            _tell(*given[:2])

    def process_event(self, event: str, data: dict[str, Any], job_id: str, additional_params: dict[str, Any]) -> None:
        """An event under 1.0.9, in a process of its own, which keeps the event in a folder: for ever, if we let it."""
        try:
            _tell(event, data)
        finally:
            shutil.rmtree(additional_params.get("workdir") or "", ignore_errors=True)

    def _asked(self, tasks: list[dict[str, Any]], context: Any) -> Any:
        if not V2:
            # 1.0.9 hands on neither project nor label config, and its one model may be that of another project.
            from flask import request

            return request.get_json()
        params = {"context": context}
        config = self.label_config
        return {"tasks": tasks, "project": str(self.project_id), "label_config": config, "params": params}


def app() -> Any:
    """The WSGI application, for one process."""
    if V2:
        api.TRAIN_EVENTS = EVENTS
        return api.init_app(Wardround)
    # It would log every event whole, masks and all, and an AssertionError for each version that it has not trained.
    logging.getLogger("label_studio_ml.model").setLevel(logging.CRITICAL)
    return api.init_app(Wardround, model_dir=os.environ["MODEL_DIR"])


def main() -> None:
    parser = argparse.ArgumentParser(description="Wardround as a label-studio-ml backend.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen; 1.0.9 asks nobody for a password")
    parser.add_argument("--port", type=int, default=9095)
    options = parser.parse_args()
    missing = [name for name in SETTINGS if not os.environ.get(name)]
    if missing:
        parser.error(f"set {', '.join(missing)}")
    logging.basicConfig(level=logging.INFO)
    app().run(host=options.host, port=options.port)


def _tell(event: str, data: dict[str, Any]) -> None:
    """Hand an event on. One that is lost is found by Wardround's next pull, so nothing is tried twice."""
    if event not in EVENTS:
        return
    try:
        _post("/webhook", {"action": event} | data, _EVENT_SECONDS)
    except Unreachable as error:
        log.warning("%s was not handed on: %s", event, error)


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirect would take the secrets along."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(path: str, body: Any, timeout_seconds: float) -> Any:
    url = os.environ["WARDROUND_PUBLIC_URL"].rstrip("/") + path
    headers = {"Content-Type": "application/json"}
    # Each secret only where it is asked for.
    if path == "/webhook":
        headers["X-Wardround-Secret"] = os.environ["WARDROUND_WEBHOOK_SECRET"]
    else:
        headers["Authorization"] = f"Bearer {os.environ['WARDROUND_API_TOKEN']}"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310 - the operator's own address
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=timeout_seconds) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise Unreachable(f"Wardround answered {error.code} to {path}: {error.read(300)!r}") from None
    except (OSError, ValueError) as error:
        raise Unreachable(f"Wardround does not answer at {url}: {error}") from None


if __name__ == "__main__":
    main()
