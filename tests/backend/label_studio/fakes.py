"""A Label Studio made of functions, and tokens for it."""

import base64
import json

import httpx

from backend.label_studio.client import LabelStudioClient

URL = "http://label-studio.test:8080"
LEGACY = "0123456789abcdef0123456789abcdef01234567"


def client(answer, url=URL, token=LEGACY):
    return LabelStudioClient(url, token, transport=httpx.MockTransport(answer))


def requests_of(call, answer=None, **options):
    """The requests that ``call`` makes, each answered by ``answer``."""
    seen = []

    def server(request):
        seen.append(request)
        return answer(request) if answer else httpx.Response(200, json={})

    with client(server, **options) as label_studio:
        call(label_studio)
    return seen


def body_of(request):
    return json.loads(request.content)


def jwt(lifetime_seconds, name="access"):
    def part(claims):
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part({'iat': 1000, 'exp': 1000 + lifetime_seconds, 'n': name})}.sig-{name}"


PAT = jwt(200 * 365 * 86400, "refresh")
