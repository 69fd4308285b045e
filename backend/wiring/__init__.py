"""What a connected project looks like in Label Studio: each part says what differs from that, and can put it right.

`model_server`, `webhook`, `served` (the published predictions), `options` (the project's settings) and `tabs` are the
parts, in the order in which they are put right; `finding` is what they say. `connect` puts all of it right, `doctor`
says it, `disconnect` takes it away again. `errors_tab` comes and goes with a search for label errors.
"""

from backend.wiring.finding import Finding, Severity
from backend.wiring.parts import findings, put_right, remove
from backend.wiring.webhook import SECRET_HEADER

__all__ = ["SECRET_HEADER", "Finding", "Severity", "findings", "put_right", "remove"]
