"""What can go wrong between the service and Label Studio."""

from backend.errors import WardroundError


class LabelStudioError(WardroundError):
    """Base of this room."""

    http_status = 502


class BadPayload(LabelStudioError):
    """A request body that is not what Label Studio sends; the message names the field."""

    http_status = 400


class UnsupportedLabelConfig(LabelStudioError):
    """A label config without a brush or polygon control on exactly one image; the message says what to change."""

    http_status = 422


class UnknownLabel(LabelStudioError):
    """A label that the label config does not have: Label Studio would drop its region without a word."""

    http_status = 422


class BadScore(LabelStudioError):
    """A score outside [0, 1]: Label Studio would drop the prediction without a word."""

    http_status = 422


class BadMask(LabelStudioError):
    """A region that cannot be read as a mask."""

    http_status = 422


class MaskSizeMismatch(BadMask):
    """A mask that has not the natural resolution of its image."""


class LabelStudioUnreachable(LabelStudioError):
    """No answer: connection refused, name unknown, timeout."""

    http_status = 503
    retryable = True


class LabelStudioUnauthorised(LabelStudioError):
    """Label Studio does not accept the configured token. A round waits for a new one: no work is lost over it.

    ``excerpt`` is the start of its answer, which says why.
    """

    retryable = True

    def __init__(self, message: str, excerpt: str = "") -> None:
        super().__init__(message)
        self.excerpt = excerpt


class LabelStudioRefused(LabelStudioError):
    """Label Studio answered with an error; ``status`` is its HTTP status, ``excerpt`` the start of its body."""

    def __init__(self, message: str, status: int, excerpt: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.excerpt = excerpt
        self.retryable = status == 429 or status >= 500


class PredictionsDropped(LabelStudioError):
    """Label Studio stored fewer predictions than were sent, which it reports only in a number."""


class QueueKeptChanging(LabelStudioError):
    """The served order changed during every attempt to read it, so no reading of it is whole."""

    http_status = 503
    retryable = True


class ForbiddenImageUrl(LabelStudioError):
    """An image that is neither on the configured Label Studio nor on a host that was named; it is never fetched."""

    http_status = 422


class ImageMissing(LabelStudioRefused):
    """Label Studio does not have the image; asking again will not help."""

    http_status = 422

    def __init__(self, message: str, status: int, excerpt: str = "") -> None:
        super().__init__(message, status, excerpt)
        self.retryable = False


class ImageTooLarge(LabelStudioError):
    """An image of more bytes than allowed; it was cut off, not kept."""

    http_status = 422
