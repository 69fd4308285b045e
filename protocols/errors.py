"""What can go wrong around a protocol; every message says what to do about it."""


class ProtocolError(Exception):
    """Base of every error of this room."""


class BadLayout(ProtocolError):
    """A data folder cannot be used as it is: a file, a column, a row or an image of it is wrong or missing."""


class BadPlan(ProtocolError):
    """The data are fine, but what was asked of them does not fit: a percentage, a split, a prompt design."""


class BadResults(ProtocolError):
    """The output folder holds a file that no run of this program wrote."""
