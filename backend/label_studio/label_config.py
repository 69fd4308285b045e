"""The label config of a project: which controls hold masks, on which image, with which labels and prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal
from xml.etree import ElementTree

from backend.label_studio.errors import UnsupportedLabelConfig

_EXAMPLE = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)
_MASKS: dict[str, Literal["brush", "polygon"]] = {"brushlabels": "brush", "polygonlabels": "polygon"}
_SMART: dict[str, Literal["rectangle", "keypoint", "brush"]] = {
    "rectanglelabels": "rectangle",
    "keypointlabels": "keypoint",
    "brushlabels": "brush",
}
# What people draw with these would be a mask that nobody reads: better refused than lost without a word.
_OTHER_MASKS = ("brush", "polygon", "magicwand", "bitmask", "bitmasklabels")
# Data with pages or frames, of which a region would be on one that we do not know.
_PAGED = ("repeater", "pdf", "paragraphs", "video", "timeseries")


@dataclass(frozen=True)
class Control:
    """A control that holds masks: ``BrushLabels`` (kind brush) or ``PolygonLabels`` (kind polygon).

    ``name`` is what regions carry as their ``from_name``, ``labels`` the names in the order of the config.
    """

    name: str
    kind: Literal["brush", "polygon"]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SmartTool:
    """A control with ``smart="true"``: where a person asks for a suggestion with a box, a point or a stroke."""

    name: str
    kind: Literal["rectangle", "keypoint", "brush"]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class LabelConfig:
    """The controls that hold masks of one image, at least one, in the order of the config.

    ``to_name`` is the image they are on, ``image_key`` the key of task data that holds its URL, ``prompts`` what the
    config itself says of labels: label → prompt, from ``<Label value="…" prompt="…"/>``.
    """

    to_name: str
    image_key: str
    controls: tuple[Control, ...]
    smart_tools: tuple[SmartTool, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of all controls in the order of the config, each once."""
        return tuple(dict.fromkeys(label for control in self.controls for label in control.labels))

    def control_for(self, label: str) -> Control:
        """Where a prediction of a label is drawn: with its brush if it has one, which can show any mask exactly."""
        having = [control for control in self.controls if label in control.labels]
        return next((control for control in having if control.kind == "brush"), having[0])


def parse_label_config(xml: str) -> LabelConfig:
    """Read the controls that hold masks and their image; controls of other kinds may be present and are ignored.

    Raises UnsupportedLabelConfig, saying what to change, where there is no ``BrushLabels`` or ``PolygonLabels``, where
    there is not exactly one ``Image`` of one file, or where masks could be drawn with something that is not read. Tag
    names are matched without case, as Label Studio's editor does.
    """
    root = _parse(xml)
    _refuse_what_is_not_read(root)
    controls = [element for element in root.iter() if _tag(element) in _MASKS]
    if not controls:
        raise _unsupported("it needs a BrushLabels or PolygonLabels control to paint masks with, and has none")
    image = _image(root)
    to_name = _attribute(image, "name")
    for element in controls:
        if _attribute(element, "toname") != to_name:
            raise _unsupported(f"{element.tag} must have toName={to_name!r}, the name of the Image")
    names = [_attribute(element, "name") for element in controls]
    if len(set(names)) != len(names):
        raise _unsupported("two controls have the same name; make them distinct")
    return LabelConfig(
        to_name,
        _image_key(image),
        tuple(Control(name, _MASKS[_tag(one)], _labels(one)) for name, one in zip(names, controls, strict=True)),
        tuple(_smart_tools(root, to_name)),
        _prompts(controls),
    )


def _parse(xml: str) -> ElementTree.Element:
    # Entities can only be declared inside a DOCTYPE, so without one there is nothing to expand
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise _unsupported("a DOCTYPE is not allowed; remove it")
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:
        raise _unsupported(f"it is not well-formed XML ({error})") from error


def _tag(element: ElementTree.Element) -> str:
    return element.tag.lower() if isinstance(element.tag, str) else ""


def _elements(root: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if _tag(element) == tag)


def _refuse_what_is_not_read(root: ElementTree.Element) -> None:
    for element in root.iter():
        if _tag(element) in _OTHER_MASKS:
            raise _unsupported(f"masks drawn with {element.tag} are not read; use BrushLabels or PolygonLabels")
        if _tag(element) in _PAGED:
            raise _unsupported(f"{element.tag} is not supported; make it one task per image and remove {element.tag}")


def _image(root: ElementTree.Element) -> ElementTree.Element:
    found = list(_elements(root, "image"))
    if len(found) != 1:
        raise _unsupported(
            f"it needs exactly one Image object to paint on, and has {len(found)}; make it one task per image"
        )
    return found[0]


def _optional(element: ElementTree.Element, name: str) -> str:
    return next((value for key, value in element.attrib.items() if key.lower() == name), "").strip()


def _attribute(element: ElementTree.Element, name: str) -> str:
    value = _optional(element, name)
    if not value:
        raise _unsupported(f"the {element.tag} tag needs the attribute {name!r}")
    return value


def _image_key(image: ElementTree.Element) -> str:
    if _optional(image, "valuelist"):
        raise _unsupported('several images per task (valueList) are not supported; use value="$image"')
    value = _attribute(image, "value")
    key = value.removeprefix("$")
    if key == value or not key.replace("_", "").replace("-", "").isalnum():
        raise _unsupported(f'the Image needs one key of the task data such as value="$image", not {value!r}')
    return key


def _label(element: ElementTree.Element) -> str:
    # A region carries the alias where there is one
    return _optional(element, "alias") or _attribute(element, "value")


def _labels(control: ElementTree.Element) -> tuple[str, ...]:
    labels = tuple(_label(element) for element in _elements(control, "label"))
    if not labels or _optional(control, "value"):
        raise _unsupported(
            f"{control.tag} needs at least one Label of its own; labels from task data are not supported"
        )
    if len(set(labels)) != len(labels):
        raise _unsupported(f"two Labels of {control.tag} have the same name; make them distinct")
    return labels


def _smart_tools(root: ElementTree.Element, to_name: str) -> Iterator[SmartTool]:
    for element in root.iter():
        kind = _SMART.get(_tag(element))
        if kind and _optional(element, "smart").lower() == "true" and _optional(element, "toname") == to_name:
            yield SmartTool(
                _attribute(element, "name"), kind, tuple(_label(one) for one in _elements(element, "label"))
            )


def _prompts(controls: list[ElementTree.Element]) -> dict[str, str]:
    """label → prompt; of a label that stands in several controls the first prompt counts."""
    found: dict[str, str] = {}
    for element in (label for control in controls for label in _elements(control, "label")):
        if prompt := _optional(element, "prompt"):
            found.setdefault(_label(element), prompt)
    return found


def _unsupported(reason: str) -> UnsupportedLabelConfig:
    return UnsupportedLabelConfig(f"label config not supported: {reason}. A config that works: {_EXAMPLE}")
