"""The adapter for label-studio-ml under 2.x, on a stand-in for it; the live test runs it under the real 1.0.9."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from backend.wiring.webhook import ACTIONS
from tests.adapter import two
from tests.test_architecture import ROOT, tracked

ADAPTER = ROOT / "adapter" / "wardround_model.py"
CONFIG = "<View/>"
PROJECT = {"id": 12, "label_config": CONFIG}
RESULTS = [{"result": [], "score": 0.25, "model_version": "wardround-r3-v2"}, {"result": [], "score": 0.75}]


class Wardround:
    """An API that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
                outer.asked.append((self.path, dict(self.headers), body))
                answers = {"/setup": {"model_version": "wardround-r3-v2"}, "/predict": {"results": RESULTS}}
                content = json.dumps(answers.get(self.path, {"status": "stored"})).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(content)))
                if outer.status == 302:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def of(self, path: str) -> list[tuple[dict[str, str], Any]]:
        return [(headers, body) for asked, headers, body in self.asked if asked == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def wardround(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Wardround]:
    api = Wardround()
    given = {"PUBLIC_URL": f"{api.url}/", "API_TOKEN": "the-token", "WEBHOOK_SECRET": "the-secret"}
    for name, value in given.items():
        monkeypatch.setenv(f"WARDROUND_{name}", value)
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))
    yield api
    api.close()


@pytest.fixture
def adapter(wardround: Wardround, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    made: dict[str, ModuleType] = {}
    two.installed(made)
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return two.loaded("wardround_model", ADAPTER)


@pytest.fixture
def server(adapter: ModuleType) -> two.Server:
    assert adapter.V2
    found: two.Server = adapter.app()
    return found


def predict_body() -> dict[str, Any]:
    return {
        "project": "12.1795395924", "label_config": CONFIG, "tasks": [{"id": 1, "data": {}}, {"id": 2, "data": {}}],
        "params": {"login": None, "password": None, "context": {"result": [{"id": "a click"}]}},
    }  # fmt: skip


def test_predictions_are_wardrounds_word_for_word(server: two.Server, wardround: Wardround) -> None:
    assert server.predict(predict_body()) == {"results": RESULTS}
    ((headers, asked),) = wardround.of("/predict")
    sent = predict_body()
    assert asked["project"] == "12"
    assert [asked[name] for name in ("tasks", "label_config")] == [sent["tasks"], CONFIG]
    assert asked["params"]["context"] == sent["params"]["context"]
    assert headers["Authorization"] == "Bearer the-token"


def test_label_studio_hears_which_version_is_served(server: two.Server) -> None:
    assert server.setup({"project": "12.1795395924", "schema": CONFIG}) == {"model_version": "wardround-r3-v2"}


@pytest.mark.parametrize("action", [*ACTIONS, "START_TRAINING"])
def test_every_event_that_wardround_listens_to_is_handed_on(
    server: two.Server, wardround: Wardround, action: str
) -> None:
    body = {"action": action, "project": PROJECT, "annotation": {"id": 3}}
    server.webhook(body)
    ((headers, told),) = wardround.of("/webhook")
    assert told == body
    assert headers["X-Wardround-Secret"] == "the-secret"
    assert "Authorization" not in headers


def test_other_events_are_not(server: two.Server, adapter: ModuleType, wardround: Wardround) -> None:
    server.webhook({"action": "PROJECT_CREATED", "project": PROJECT})
    adapter.Wardround("12", CONFIG).fit("PROJECT_CREATED", {"project": PROJECT})
    assert wardround.of("/webhook") == []


def test_a_wardround_that_refuses_stops_no_annotator_but_predicts_nothing(
    server: two.Server, adapter: ModuleType, wardround: Wardround, caplog: pytest.LogCaptureFixture
) -> None:
    wardround.status = 503
    assert server.setup({"project": "12.1", "schema": CONFIG})["model_version"] == "0.0.1"
    assert server.webhook({"action": "ANNOTATION_CREATED", "project": PROJECT})["status"] == "ok"
    assert "ANNOTATION_CREATED was not handed on" in caplog.text
    with pytest.raises(adapter.Unreachable, match="503"):
        server.predict(predict_body())
    assert "the-token" not in caplog.text and "the-secret" not in caplog.text


def test_secrets_do_not_follow_a_redirect(server: two.Server, adapter: ModuleType, wardround: Wardround) -> None:
    wardround.status = 302
    with pytest.raises(adapter.Unreachable, match="302"):
        server.predict(predict_body())
    assert wardround.of("/elsewhere") == []


def test_it_says_which_settings_are_missing(adapter: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("WARDROUND_API_TOKEN")
    monkeypatch.setattr(sys, "argv", ["wardround_model.py"])
    with pytest.raises(SystemExit):
        adapter.main()
    assert "set WARDROUND_API_TOKEN" in capsys.readouterr().err


def test_only_the_adapter_knows_label_studio_ml_and_it_knows_nothing_else() -> None:
    found = re.compile(r"^\s*(?:from|import) label_studio_ml\b", re.MULTILINE)
    code = [path for path in tracked() if path.suffix == ".py" and "tests" not in path.relative_to(ROOT).parts]
    assert [path for path in code if found.search(path.read_text())] == [ADAPTER]
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", ADAPTER.read_text(), re.MULTILINE))
    assert imported - sys.stdlib_module_names == {"label_studio_ml", "flask"}


def test_the_version_it_is_tested_with_is_the_locked_one() -> None:
    makefile = re.search(r"^LABEL_STUDIO_ML_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert makefile is not None
    assert f"label-studio-ml=={makefile.group(1)} " in (ROOT / "adapter.lock").read_text()


def test_without_label_studio_ml_it_says_so() -> None:
    done = subprocess.run([sys.executable, str(ADAPTER)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "No module named 'label_studio_ml'" in done.stderr
