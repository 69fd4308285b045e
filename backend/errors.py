"""The error tree of the service. Each class knows its HTTP status and whether trying again can help."""

from __future__ import annotations


class WardroundError(Exception):
    """Base of every error the service raises on purpose; the message says what is wrong and what to do."""

    http_status = 500
    retryable = False


class BadSettings(WardroundError):
    """A setting is missing or unusable."""


class DatabaseUnreachable(WardroundError):
    """No answer from the database."""

    http_status = 503
    retryable = True


class SchemaTooNew(WardroundError):
    """The database was written by a newer Wardround."""


class NotAuthorised(WardroundError):
    """The caller showed no secret, or a wrong one."""

    http_status = 401


class NotConnected(WardroundError):
    """The project is not connected to this Wardround."""

    http_status = 404


class NotFound(WardroundError):
    """There is no such round, task or version."""

    http_status = 404


class TooEarly(WardroundError):
    """There are too few figures yet to answer what was asked."""

    http_status = 409


class BadQuestion(WardroundError):
    """What was asked cannot be answered, however many figures there are."""

    http_status = 422


class NothingLabelled(WardroundError):
    """There is no mask to simulate with."""

    http_status = 409


class NotAnExport(WardroundError):
    """A file is not the JSON in which Label Studio exports a project."""

    http_status = 422


class ImageNotInFolder(WardroundError):
    """The folder that was named holds no image of a task, or not for certain."""

    http_status = 404


class FolderUnusable(WardroundError):
    """A labelled folder cannot be written, or something else lies where it would."""

    http_status = 409


class BadImage(WardroundError):
    """An image is too large, truncated or not an image."""

    http_status = 422


class MissingFile(WardroundError):
    """A file the database speaks of is not on disk."""


class DamagedFile(WardroundError):
    """A stored file no longer has the bytes its name promises."""


class DiskFull(WardroundError):
    """There is no room left for files or rows; what waits goes on once there is."""

    http_status = 507
    retryable = True


class StoreUnreachable(WardroundError):
    """The store that machines share (WARDROUND_FILES_URL) does not answer."""

    http_status = 503
    retryable = True


class RoundError(WardroundError):
    """Base of what can go wrong in a round."""


class RoundRunning(RoundError):
    """A round of this project is running already."""

    http_status = 409


class RoundFinished(RoundError):
    """The round is over, so there is nothing to cancel."""

    http_status = 409


class DeviceBusy(RoundError):
    """Another process of this machine trains on the device."""

    http_status = 409
    retryable = True


class CannotRestore(RoundError):
    """The model version cannot serve again."""

    http_status = 409


class ClaimLost(RoundError):
    """Another process took the round over; this one must stop and write nothing more."""


class NothingToPublish(RoundError):
    """The project has no task to rank."""


class QueueMismatch(RoundError):
    """Label Studio serves another order than the one published."""


class Interrupted(WardroundError):
    """The process was asked to stop; the round goes on in another one."""

    retryable = True
