"""What can go wrong before a simulation has anything to say."""


class SimulationError(Exception):
    """Base of every error of this room."""


class BadDataset(SimulationError):
    """The labelled folder cannot be used as it is."""


class BadPlan(SimulationError):
    """The folder is fine, but what was asked of it does not fit: too few images, a share out of range."""


class BadResults(SimulationError):
    """The output folder holds results that this run must not be mixed with, or cannot read."""
