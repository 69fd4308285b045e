"""ENTRY POINT: the HTTP routes. Each parses, calls one function of a journey and shapes the answer."""

import base64
import binascii
import hmac
import logging
import os
import re
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend import (
    annotations,
    bodies,
    effort,
    forecast,
    interactive,
    logs,
    metrics,
    paying,
    predictions,
    report,
    rounds,
)
from backend.context import Context
from backend.errors import DiskFull, NotAuthorised, RoundRunning, WardroundError
from backend.label_studio.errors import BadPayload
from backend.label_studio.payloads import Event, PredictRequest, parse_predict, parse_setup, parse_webhook
from backend.nudges import Nudges
from backend.store import figures, projects
from backend.wiring import SECRET_HEADER

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 512_000_000  # one request carries every selected task, predictions and all

_REQUEST_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)  # anything else would put foreign words, or lines, into our log

Id = Annotated[int, Path(ge=1, lt=2**31)]
Target = Annotated[float, Query(gt=0, lt=1, description="Dice to reach.")]


class _Secrets:
    """The two secrets callers may show. Compared in constant time, never logged."""

    def __init__(self, api_token: str, webhook_secret: str) -> None:
        self._api_token = api_token
        self._webhook_secret = webhook_secret

    def api(self, request: Request) -> None:
        """Basic auth with the token as password (what Label Studio sends), or the token as bearer."""
        if not self._shows_token(request):
            raise NotAuthorised("show WARDROUND_API_TOKEN as basic auth password (user wardround) or as bearer token")

    def api_or_webhook(self, request: Request) -> None:
        """Label Studio's webhook shows our header; its "Start training" comes with basic auth instead."""
        shown = request.headers.get(SECRET_HEADER, "")
        if not _same(shown, self._webhook_secret) and not self._shows_token(request):
            raise NotAuthorised(f"show WARDROUND_WEBHOOK_SECRET in the header {SECRET_HEADER}")

    def _shows_token(self, request: Request) -> bool:
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return _same(value, self._api_token)
        return kind.lower() == "basic" and _same(_password(value), self._api_token)


def create_app(ctx: Context) -> FastAPI:
    """The API over a context. Nothing here loads weights except a prediction that is not stored yet."""
    app = FastAPI(title="Wardround", docs_url=None, redoc_url=None, openapi_url=None)
    secrets = _Secrets(ctx.settings.api_token.get_secret_value(), ctx.settings.webhook_secret.get_secret_value())
    app.add_middleware(_Observed)
    _add_open_routes(app, ctx)
    _add_label_studio_routes(app, ctx, secrets)
    _add_report_routes(app, ctx, secrets)
    app.add_exception_handler(WardroundError, _shape_error)
    app.add_exception_handler(HTTPException, _shape_refusal)
    app.add_exception_handler(RequestValidationError, _shape_validation)
    app.add_exception_handler(Exception, _shape_surprise)
    return app


class _Observed:
    """Names every request, in the log and in the answer, and counts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        shown = Headers(scope=scope).get("X-Request-ID", "")
        request = shown if _REQUEST_ID.fullmatch(shown) else uuid.uuid4().hex
        status, started = 500, time.monotonic()

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request
            await send(message)

        with logs.bound(request=request):
            try:
                await self._app(scope, receive, named)
            except Exception:
                log.exception("%s %s failed unexpectedly", scope["method"], _template(scope))
                raise
            finally:
                metrics.observed_request(_template(scope), scope["method"], status, time.monotonic() - started)


def _template(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "none")  # not the path: anybody may ask for any number of those


def _add_open_routes(app: FastAPI, ctx: Context) -> None:
    # `async`: these answer from the event loop, whatever the threads are busy with.
    @app.get("/health")
    @app.get("/")
    async def health() -> dict[str, str]:
        return {"status": "UP"}

    @app.get("/ready")
    def ready() -> Response:
        missing = {part: why for part, why in _unready(ctx).items() if why}
        return _json({"status": "not ready" if missing else "ready"} | missing, 503 if missing else 200)


def _add_label_studio_routes(app: FastAPI, ctx: Context, secrets: _Secrets) -> None:
    nudges = Nudges(ctx)

    @app.post("/setup", dependencies=[Depends(secrets.api)], openapi_extra=bodies.SETUP)
    def setup(body: Annotated[Any, Depends(_body)]) -> dict[str, str]:
        with ctx.store.read() as s:
            project = projects.find(s, parse_setup(body))
        return {"model_version": (project and project.published_version) or predictions.UNPUBLISHED}

    @app.get("/versions", dependencies=[Depends(secrets.api)])
    def versions() -> dict[str, list[str]]:
        with ctx.store.read() as s:
            names = [project.published_version for project in projects.every(s)]
        return {"versions": [name for name in names if name] or [predictions.UNPUBLISHED]}

    @app.post("/predict", dependencies=[Depends(secrets.api)], openapi_extra=bodies.PREDICT)
    def predict(body: Annotated[Any, Depends(_body)]) -> Response:
        wanted = parse_predict(body)
        with logs.bound(project=wanted.project_id, **_only_task(wanted)):
            journey = predictions if wanted.context is None else interactive
            return Response(journey.answer(ctx, wanted), media_type="application/json")

    @app.post("/webhook", dependencies=[Depends(secrets.api_or_webhook)], status_code=201, openapi_extra=bodies.WEBHOOK)
    def webhook(body: Annotated[Any, Depends(_body)]) -> dict[str, str]:
        event = parse_webhook(body)
        with logs.bound(project=event.project_id, **_only_task(event)):
            if event.action == "START_TRAINING":
                outcome, status = _start_training(ctx, event)
            else:
                outcome, status = _take_in(ctx, event, nudges)
        metrics.observed_webhook(event.action, outcome)
        return {"status": status}


def _add_report_routes(app: FastAPI, ctx: Context, secrets: _Secrets) -> None:
    @app.get("/api/projects/{project_id}/rounds", dependencies=[Depends(secrets.api)])
    def list_rounds(project_id: Id) -> Response:
        return _json(report.rounds_of(ctx, project_id))

    @app.post("/api/projects/{project_id}/rounds", dependencies=[Depends(secrets.api)], status_code=201)
    def start_round(project_id: Id) -> Response:
        return _json(report.round_in_full(ctx, rounds.open_now(ctx, project_id)), status_code=201)

    @app.get("/api/rounds/{round_id}", dependencies=[Depends(secrets.api)])
    def show_round(round_id: Id) -> Response:
        return _json(report.round_in_full(ctx, round_id))

    @app.post("/api/rounds/{round_id}/cancel", dependencies=[Depends(secrets.api)])
    def cancel_round(round_id: Id) -> Response:
        with logs.bound(round=round_id):
            rounds.cancel(ctx, round_id)
        return _json(report.round_in_full(ctx, round_id))

    @app.post(
        "/api/projects/{project_id}/rollback",
        dependencies=[Depends(secrets.api)],
        status_code=201,
        openapi_extra=bodies.ROLLBACK,
    )
    def roll_back(project_id: Id, body: Annotated[Any, Depends(_body)]) -> Response:
        with logs.bound(project=project_id):
            round_id = rounds.roll_back(ctx, project_id, _version_number(body))
        return _json(report.round_in_full(ctx, round_id), status_code=201)

    @app.get("/metrics", dependencies=[Depends(secrets.api)])
    def show_metrics() -> Response:
        with ctx.store.read() as s:
            known = figures.gauges(s, lease_seconds=ctx.settings.lease_seconds, now=ctx.now())
        free = metrics.Gauge("wardround_free_disk_bytes", "Room left in the data folder.", _free_bytes(ctx))
        return Response(metrics.exposition([*known, free]), media_type=metrics.CONTENT_TYPE)

    @app.get("/api/projects/{project_id}/queue", dependencies=[Depends(secrets.api)])
    def show_queue(project_id: Id) -> Response:
        return _json(report.queue_of(ctx, project_id))

    @app.get("/api/projects/{project_id}/effort", dependencies=[Depends(secrets.api)])
    def show_effort(project_id: Id) -> Response:
        return _json(effort.summary(ctx, project_id))

    @app.get("/api/projects/{project_id}/forecast", dependencies=[Depends(secrets.api)])
    def show_forecast(project_id: Id, target: Target = forecast.TARGET) -> Response:
        return _json(forecast.of_project(ctx, project_id, target))

    @app.get("/api/projects/{project_id}/paying", dependencies=[Depends(secrets.api)])
    def show_paying(project_id: Id) -> Response:
        return _json(paying.of_project(ctx, project_id))


def _same(shown: str, secret: str) -> bool:
    return bool(secret) and hmac.compare_digest(shown.encode(), secret.encode())


def _password(basic: str) -> str:
    try:
        return base64.b64decode(basic, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


async def _body(request: Request) -> Any:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            raise BadPayload(f"the body is larger than {_MAX_BODY_BYTES} bytes; select fewer tasks")
    try:
        # Long masks take a while to parse; the event loop answers /health meanwhile.
        return await run_in_threadpool(orjson.loads, content)
    except orjson.JSONDecodeError:
        raise BadPayload("the body is not JSON; is the sender Label Studio?") from None


def _start_training(ctx: Context, event: Event) -> tuple[str, str]:
    try:
        rounds.open_now(ctx, event.project_id)
    except RoundRunning as error:
        return "running", str(error)
    return "opened", "a round was opened"


def _take_in(ctx: Context, event: Event, nudges: Nudges) -> tuple[str, str]:
    if not annotations.receive(ctx, event):
        return "ignored", "ignored: the project is not connected"
    if event.annotations:
        nudges.give(event.project_id)
    return "stored", "stored"


def _only_task(asked: Event | PredictRequest) -> dict[str, int]:
    """What to bind: the task, where it is all about one."""
    ids = {task.id for task in asked.tasks}
    return {"task": ids.pop()} if len(ids) == 1 else {}


def _version_number(body: Any) -> int:
    number = body.get("version") if isinstance(body, dict) else None
    if type(number) is not int or not 1 <= number < 2**31:
        raise BadPayload('name the number of the version that shall serve again: {"version": 3}')
    return number


def _unready(ctx: Context) -> dict[str, str | None]:
    """Each part with what is wrong with it. Open to everybody, so no address, path or number is said."""
    return {"database": figures.problem(ctx.store), "data_folder": _folder_problem(ctx)}


def _folder_problem(ctx: Context) -> str | None:
    try:
        ctx.files.require_room(ctx.settings.min_free_disk_bytes)
        writable = os.access(ctx.files.folder, os.W_OK | os.X_OK)
    except DiskFull:
        return "less is free than WARDROUND_MIN_FREE_DISK_BYTES"
    except (WardroundError, OSError):
        writable = False
    return None if writable else "it cannot be written to"


def _free_bytes(ctx: Context) -> list[tuple[Mapping[str, str], float]]:
    try:
        return [({}, ctx.files.free_bytes())]
    except (WardroundError, OSError):
        return []  # a disk that is gone must not take every other figure with it


def _json(value: Any, status_code: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code, media_type="application/json")


async def _shape_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "http_status", 500)
    log.log(logging.ERROR if status >= 500 else logging.WARNING, "%s: %s", type(error).__name__, error)
    headers = {"WWW-Authenticate": "Basic"} if status == 401 else None
    return _error(type(error).__name__, str(error), status, headers)


async def _shape_refusal(_request: Request, error: Exception) -> Response:
    """The framework's own: no such route, or not by this method."""
    return _error(
        "NoSuchRoute",
        str(getattr(error, "detail", "")),
        getattr(error, "status_code", 404),
        getattr(error, "headers", None),
    )


async def _shape_validation(_request: Request, error: Exception) -> Response:
    """An id in the path that is none."""
    problems = error.errors() if isinstance(error, RequestValidationError) else []
    return _error("BadRequest", "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in problems), 422)


async def _shape_surprise(_request: Request, _unexpected: Exception) -> Response:
    """What nobody expected goes to the log, with its trace; the caller learns no more than that."""
    return _error("InternalError", "something unexpected happened; the log of the API says what", 500)


def _error(name: str, detail: str, status_code: int, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": name, "detail": detail}, status_code, headers)
