"""What can go wrong in the demo. Each message says what happened and where to look."""


class DemoError(Exception):
    """Base of everything the demo raises on purpose."""


class PortBusy(DemoError):
    """Another program already listens where a server was to start."""


class NotInstalled(DemoError):
    """A program the demo starts is not there."""


class ChildDied(DemoError):
    """A started process ended, or never became ready; the message carries the tail of its log."""


class DemoRunning(DemoError):
    """Another demo holds the same state folder."""


class BadData(DemoError):
    """The folder given as data cannot be used."""


class LoopNotClosed(DemoError):
    """Everything ran, but the loop did not come round: the message says which step is missing."""
