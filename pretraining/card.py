"""What the weights say of themselves."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pretraining.generator import SHARES, VERSION
from pretraining.loop import Plan


def card(plan: Plan, step: int) -> dict[str, Any]:
    """A JSON-able account of what was seen until a step, what never was, and how to make it again."""
    command = f"python -m pretraining FILE --steps {plan.steps} --batch-size {plan.batch_size} --fresh {plan.fresh}"
    return {
        "name": "tiny, pretrained on synthetic scenes",
        "saw": {
            "what": "images drawn by the programs in pretraining/, and captions written by them",
            "generator_version": VERSION,
            "shares": {maker.__name__: share for maker, share in SHARES.items()},
            "scenes": plan.batch_size + plan.fresh * step,
            "steps": step,
        },
        "never_saw": "any photograph, scan or other recording of a person, an animal or a specimen",
        "chosen_by_eye": "the look of the scenes, with colonoscopy, ultrasound, MRI and microscopy pictures in view, "
        "some of them of the sets it is measured on; a first generator was improved once after a trial "
        "on two of those sets",
        "plan": asdict(plan),
        "command": f"{command} --learning-rate {plan.learning_rate:g} --seed {plan.seed}",
        "licence": "Apache-2.0, as the project: nothing but its own programs went in",
        "use": "a start for fine-tuning; not a model of any real image, and no medical device",
    }
