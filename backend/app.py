"""ENTRY POINT: the HTTP routes. Each parses, calls one function of a journey and shapes the answer."""

import base64
import binascii
import hmac
import logging
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from backend import annotations, predictions, report, rounds
from backend.connect import SECRET_HEADER
from backend.context import Context
from backend.errors import NotAuthorised, RoundRunning, WardroundError
from backend.label_studio.errors import BadPayload
from backend.label_studio.payloads import Event, parse_predict, parse_setup, parse_webhook
from backend.store import projects

log = logging.getLogger(__name__)

_MAX_BODY_BYTES = 512_000_000  # one request carries every selected task, predictions and all

Id = Annotated[int, Path(ge=1, lt=2**31)]


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
    _add_open_routes(app)
    _add_label_studio_routes(app, ctx, secrets)
    _add_report_routes(app, ctx, secrets)
    app.add_exception_handler(WardroundError, _shape_error)
    app.add_exception_handler(HTTPException, _shape_refusal)
    app.add_exception_handler(RequestValidationError, _shape_validation)
    app.add_exception_handler(Exception, _shape_surprise)
    return app


def _add_open_routes(app: FastAPI) -> None:
    # `async`: these answer from the event loop, whatever the threads are busy with.
    @app.get("/health")
    @app.get("/")
    async def health() -> dict[str, str]:
        return {"status": "UP"}


def _add_label_studio_routes(app: FastAPI, ctx: Context, secrets: _Secrets) -> None:
    @app.post("/setup", dependencies=[Depends(secrets.api)])
    def setup(body: Annotated[Any, Depends(_body)]) -> dict[str, str]:
        with ctx.store.read() as s:
            project = projects.find(s, parse_setup(body))
        return {"model_version": (project and project.published_version) or predictions.UNPUBLISHED}

    @app.get("/versions", dependencies=[Depends(secrets.api)])
    def versions() -> dict[str, list[str]]:
        with ctx.store.read() as s:
            names = [project.published_version for project in projects.every(s)]
        return {"versions": [name for name in names if name] or [predictions.UNPUBLISHED]}

    @app.post("/predict", dependencies=[Depends(secrets.api)])
    def predict(body: Annotated[Any, Depends(_body)]) -> Response:
        return Response(predictions.answer(ctx, parse_predict(body)), media_type="application/json")

    @app.post("/webhook", dependencies=[Depends(secrets.api_or_webhook)], status_code=201)
    def webhook(body: Annotated[Any, Depends(_body)]) -> dict[str, str]:
        event = parse_webhook(body)
        if event.action == "START_TRAINING":
            return {"status": _start_training(ctx, event)}
        connected = annotations.receive(ctx, event)
        if connected and event.annotations:
            ctx.enqueue("open_if_due", event.project_id)
        return {"status": "stored" if connected else "ignored: the project is not connected"}


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

    @app.get("/api/projects/{project_id}/queue", dependencies=[Depends(secrets.api)])
    def show_queue(project_id: Id) -> Response:
        return _json(report.queue_of(ctx, project_id))


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


def _start_training(ctx: Context, event: Event) -> str:
    try:
        rounds.open_now(ctx, event.project_id)
    except RoundRunning as error:
        return str(error)
    return "a round was opened"


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
