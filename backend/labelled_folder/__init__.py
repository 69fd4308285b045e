"""JOURNEY 5, the way in: what people annotated, as a labelled folder that the simulation reads.

`data` finds out what is meant, `scratch` has a round freeze its items in a database of a moment, `folder` writes them.
"""

from backend.labelled_folder.data import Source, of_data, of_export, of_project
from backend.labelled_folder.folder import Labelled

__all__ = ["Labelled", "Source", "of_data", "of_export", "of_project"]
