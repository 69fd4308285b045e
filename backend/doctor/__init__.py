"""What is wrong between Wardround and Label Studio, and what puts it right.

`access` looks at the two services and the way between them, `project` at one project, whose wiring says most of it
itself (`backend/wiring`), `order` at where in the queue its answers came from. Looking changes nothing, in Label Studio
or here.
"""

from backend.doctor.examination import Examination, examine, fix, in_words

__all__ = ["Examination", "examine", "fix", "in_words"]
