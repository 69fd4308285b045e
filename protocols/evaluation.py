"""How good a checkpoint is that one already has, ours or a released one, on test sets and under prompt designs."""

from collections.abc import Sequence
from pathlib import Path

import model
from protocols import published, report, runs
from protocols.errors import BadPlan
from protocols.results import Outcome
from protocols.runs import Setup, Trained

NAME = "evaluation"
RELEASED_ENDINGS = (".pth", ".pt")


def given(path: Path, backbone: str, setup: Setup) -> Trained:
    """A checkpoint as something to score. Raises BadPlan where there is none."""
    if not path.is_file():
        raise BadPlan(f"{path} does not exist; give a .safetensors checkpoint of ours or a released .pth")

    def load() -> model.Segmenter:
        if path.suffix.lower() not in RELEASED_ENDINGS:
            return model.Segmenter.load(path, device=setup.device, source=setup.origin())
        from model.released import load_released

        return load_released(path, backbone, setup.device, setup.origin())

    return Trained(runs.file_key(path), source="", n_train=0, steps=None, seconds=None, notes=(), open=load)


def write(out: Path, outcomes: Sequence[Outcome]) -> Path:
    """The report over all outcomes of given checkpoints. Returns its path."""
    ours = [o for o in outcomes if not o.source]
    return report.write(out, NAME, "Checkpoints on test sets", [_scores(ours), _designs(ours)], ours)


def _scores(outcomes: Sequence[Outcome]) -> str:
    rows = [
        (
            *(o.model, o.data, o.split, o.prompts, str(o.n_test)),
            *(report.percentage(value) for value in (o.dice, o.nsd_released, o.nsd, o.iou)),
            *(f"{o.hd95:.2f}", f"{o.brier:.4f}", f"{o.ece:.4f}", f"{o.aurc:.4f}", _reference(o)),
        )
        for o in outcomes
    ]
    header = ["checkpoint", "data", "split", "prompts", "images", "DSC, %", "NSD as published, %"]
    header += ["boundary NSD (2 px), %", "IoU, %", "HD95, px", "Brier", "ECE", "AURC"]
    return "## Scores\n\n" + report.table([*header, f"published DSC of {published.OURS}, %"], rows)


def _reference(outcome: Outcome) -> str:
    """The published DSC on this test set, and on what that model was trained."""
    name = published.canonical(outcome.data)
    figure = published.DOMAIN[published.OURS].get(name)
    if figure is None or outcome.prompts != "original":
        return report.NOT_PUBLISHED
    source = name if name in published.TARGETS else next(s for s, t in published.TARGETS.items() if name in t)
    return f"{figure:.2f} (trained on {source})"


def _designs(outcomes: Sequence[Outcome]) -> str:
    there = {o.prompts for o in outcomes}
    rows = [
        (design, "yes" if design in there else "no", *(f"{value:.2f}" for value in means))
        for design, means in published.PROMPT_DESIGNS.items()
    ]
    text = (
        f"DSC of {published.OURS} in %, over four sources (ID), over their ten targets (OOD), and the harmonic mean; "
        "what a design costs on a single data set is not published."
    )
    header = ["test prompts", "scored above", "ID", "OOD", "harmonic mean"]
    return f"## Published by prompt design\n\n{text}\n\n" + report.table(header, rows)
