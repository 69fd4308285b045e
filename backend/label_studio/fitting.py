"""Regions held to the label config of today: what Label Studio would drop, or store unseen, is never sent."""

from collections.abc import Mapping, Sequence
from typing import Any

from backend.label_studio.label_config import LabelConfig


def fitting(label_config: LabelConfig, regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The regions that the config has a control, an image and the labels for, in their order.

    A stored prediction may be older than the config: people rename and remove labels. Label Studio drops a prediction
    with a region that does not fit, or stores it unchecked where its faster import is on; both without a word.
    """
    return [region for region in regions if _fits(label_config, region)]


def _fits(label_config: LabelConfig, region: Mapping[str, Any]) -> bool:
    kind = str(region.get("type"))
    value = region.get("value")
    painted = value.get(kind) if isinstance(value, Mapping) else None
    return region.get("to_name") == label_config.to_name and any(
        region.get("from_name") == control.name
        and kind == f"{control.kind}labels"
        and bool(painted)
        and set(painted or ()) <= set(control.labels)
        for control in label_config.controls
    )
