"""The two services and the way between them: token, version, addresses, secrets, locks."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from backend.context import Context
from backend.doctor.project import is_served_to
from backend.errors import BadSettings
from backend.label_studio import inspection
from backend.label_studio.errors import LabelStudioError, LabelStudioRefused, LabelStudioUnauthorised
from backend.wiring import SECRET_HEADER, Finding, Severity
from backend.wiring.model_server import USER

TESTED = "1.23."
_LONGEST_LOCK_SECONDS = 4 * 3600.0
_SUBNETS_CURE = (
    "set LABEL_STUDIO_USE_DEFAULT_BANNED_SUBNETS=false and "
    "LABEL_STUDIO_USER_ADDITIONAL_BANNED_SUBNETS=169.254.0.0/16,fd00:ec2::/32 for Label Studio, and restart it"
)
_NEW_TOKEN = "set WARDROUND_LABEL_STUDIO_TOKEN to a new personal access token (Account & Settings), and restart"  # noqa: S105 - words
_DOT_CURE = "give WARDROUND_PUBLIC_URL a host name with a dot, `localhost` or an IP address, restart, and connect again"
# Label Studio 1.23 has no API that says it; its own code makes no second row either. `order` sees what they do.
_MEMBERS = (
    "whether a project has several ProjectMember rows, for which Label Studio serves random tasks: no API says; once "
    "eight answers have come, answers-out-of-order does"
)


@dataclass
class Look:
    """What was found, what could not be looked at, and whether it makes sense to ask about projects."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=lambda: [_MEMBERS])
    label_studio_answers: bool = True

    def error(self, code: str, message: str, cure: str) -> None:
        self.findings.append(Finding(code, Severity.error, message, cure))

    def warning(self, code: str, message: str, cure: str) -> None:
        self.findings.append(Finding(code, Severity.warning, message, cure))


def look(ctx: Context, project_ids: Sequence[int]) -> Look:
    """`project_ids` are those that may be asked about; without any, some things cannot be learnt."""
    found = Look()
    _settings(ctx, found)
    _token(ctx, found)
    if found.label_studio_answers:
        _label_studio(ctx, found)
        _addresses(ctx, found, project_ids)
    _api(ctx, found, project_ids)
    return found


def _settings(ctx: Context, found: Look) -> None:
    try:
        ctx.settings.require("public_url", "api_token", "webhook_secret")
    except BadSettings as error:
        found.error("settings-missing", "the two services cannot prove to each other who they are", str(error))
    host = urlsplit(ctx.settings.public_url).hostname or ""
    if not _is_full_name(host):
        message = f"Label Studio makes no webhook for {ctx.settings.public_url}: {host!r} is a name without a dot"
        found.error("public-url-single-label", message, _DOT_CURE)


def _is_full_name(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or "." in host.strip(".")
    return True


def _token(ctx: Context, found: Look) -> None:
    try:
        ctx.label_studio.require_access()
    except LabelStudioUnauthorised as error:
        found.label_studio_answers = False
        _refused_token(ctx, found, error)
    except LabelStudioError as error:
        found.label_studio_answers = False
        cure = "start Label Studio, or set WARDROUND_LABEL_STUDIO_URL to where it is"
        found.error("label-studio-unreachable", str(error), cure)


def _refused_token(ctx: Context, found: Look, error: LabelStudioUnauthorised) -> None:
    kind = inspection.kind_of(ctx.settings.label_studio_token.get_secret_value())
    if kind == "access":
        message = "WARDROUND_LABEL_STUDIO_TOKEN is an access token, which lives five minutes and cannot be renewed"
        found.error("token-is-access-token", message, _NEW_TOKEN)
    elif inspection.legacy_tokens_are_off(error):
        message = "WARDROUND_LABEL_STUDIO_TOKEN is a legacy token, and the organisation allows none"
        cure = f"{_NEW_TOKEN}; or allow legacy tokens under Organization, Access Token Settings"
        found.error("legacy-token-off", message, cure)
    else:
        message = f"Label Studio does not accept WARDROUND_LABEL_STUDIO_TOKEN (a {kind} token): revoked, or wrong"
        if kind == "personal":
            message += ", or signed with a SECRET_KEY that Label Studio had before it was restarted"
        found.error("token-refused", message, _NEW_TOKEN)


def _label_studio(ctx: Context, found: Look) -> None:
    release = ctx.label_studio.release()
    if not release.startswith(TESTED):
        message = f"Label Studio is {release or 'of an unknown version'}; Wardround was tested with {TESTED}x"
        found.warning("label-studio-version", message, f"read the release notes since {TESTED}x, or install that one")
    seconds = ctx.label_studio.lock_seconds()
    if seconds is None:
        found.unchecked.append(
            "how long a closed browser keeps its task from others: Label Studio tells only a superuser with a personal "
            "access token; see that LABEL_STUDIO_TASK_LOCK_TTL is about 3600 there (86400 by default)"
        )
    elif seconds > _LONGEST_LOCK_SECONDS:
        message = f"an annotator who closes the browser keeps a task from the others for {seconds / 3600:.0f} hours"
        found.warning("lock-ttl", message, "set LABEL_STUDIO_TASK_LOCK_TTL=3600 for Label Studio and restart it")


def _addresses(ctx: Context, found: Look, project_ids: Sequence[int]) -> None:
    """Ask Label Studio itself: it may see another network than we do."""
    url = ctx.settings.public_url
    try:
        refused = [ctx.label_studio.refusals(project_id, url) for project_id in project_ids[:1]]
    except LabelStudioRefused:
        refused = []  # no such project, or not ours to ask about: both are said elsewhere
    if not refused:
        found.unchecked.append(f"whether Label Studio takes {url}: name a project that exists")
        return
    what = {"backends": refused[0].model_server, "webhooks": refused[0].webhook}
    blocked = " and ".join(name for name, why in what.items() if why == "blocked")
    if blocked:
        message = f"Label Studio refuses {url} for {blocked}, because its address is of a banned subnet"
        found.error("address-blocked", message, _SUBNETS_CURE)
    if "unknown host" in what.values():
        message = f"Label Studio cannot resolve the host name of {url}"
        found.error("address-unknown", message, "set WARDROUND_PUBLIC_URL to a name that Label Studio's host knows")
    if what["webhooks"] == "bad url" and "public-url-single-label" not in {finding.code for finding in found.findings}:
        found.error("address-refused", f"Label Studio says that {url} is no valid URL of a webhook", _DOT_CURE)


def _api(ctx: Context, found: Look, project_ids: Sequence[int]) -> None:
    """Ask our API as Label Studio would; from here the way may be another."""
    url = ctx.settings.public_url
    token, secret = ctx.settings.api_token.get_secret_value(), ctx.settings.webhook_secret.get_secret_value()
    answers = inspection.ask(url, USER, token, SECRET_HEADER, secret)
    if answers.problem is not None:
        if found.label_studio_answers and is_served_to(ctx, project_ids):
            found.unchecked.append(f"whether the API takes the webhook's secret: {url} does not answer from here")
            return
        cure = "start `wardround api`, or set WARDROUND_PUBLIC_URL to where Label Studio reaches it"
        found.error("api-unreachable", f"there is no Wardround at {url}: {answers.problem}", cure)
    same = "give the API and this command the same environment, and restart the API"
    if answers.takes_token is False:
        found.error("api-token-differs", f"the API at {url} runs with another WARDROUND_API_TOKEN", same)
    if answers.takes_secret is False:
        found.error("api-secret-differs", f"the API at {url} runs with another WARDROUND_WEBHOOK_SECRET", same)
