"""The label config of a project: which control paints, on which image, with which labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from backend.label_studio.errors import UnsupportedLabelConfig

_EXAMPLE = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="brush" toName="image"><Label value="Lesion"/></BrushLabels></View>'
)


@dataclass(frozen=True)
class LabelConfig:
    """One brush control on one image.

    ``from_name`` is the brush control, ``to_name`` the image it paints on, ``image_key`` the key of task data
    that holds the image's URL, ``labels`` the names in the order of the config.
    """

    from_name: str
    to_name: str
    image_key: str
    labels: tuple[str, ...]


def parse_label_config(xml: str) -> LabelConfig:
    """Read the brush control and its image; other controls may be present and are ignored.

    Raises UnsupportedLabelConfig where there is not exactly one ``BrushLabels`` on one ``Image``, saying what to
    change. Tag names are matched without case, as Label Studio's editor does.
    """
    root = _parse(xml)
    brush = _only(root, "brushlabels", "BrushLabels control to paint masks with")
    image = _only(root, "image", "Image object to paint on")
    to_name = _attribute(image, "name")
    if _attribute(brush, "toname") != to_name:
        raise _unsupported(f"BrushLabels must have toName={to_name!r}, the name of the Image")
    return LabelConfig(_attribute(brush, "name"), to_name, _image_key(image), _labels(brush))


def _parse(xml: str) -> ElementTree.Element:
    # Entities can only be declared inside a DOCTYPE, so without one there is nothing to expand
    if "<!DOCTYPE" in xml or "<!ENTITY" in xml:
        raise _unsupported("a DOCTYPE is not allowed; remove it")
    try:
        return ElementTree.fromstring(xml)
    except (ElementTree.ParseError, ValueError) as error:
        raise _unsupported(f"it is not well-formed XML ({error})") from error


def _elements(root: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    return (element for element in root.iter() if isinstance(element.tag, str) and element.tag.lower() == tag)


def _only(root: ElementTree.Element, tag: str, what: str) -> ElementTree.Element:
    found = list(_elements(root, tag))
    if len(found) != 1:
        raise _unsupported(f"it needs exactly one {what}, and has {len(found)}")
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


def _labels(brush: ElementTree.Element) -> tuple[str, ...]:
    # A region carries the alias where there is one
    labels = tuple(_optional(label, "alias") or _attribute(label, "value") for label in _elements(brush, "label"))
    if not labels:
        raise _unsupported("BrushLabels needs at least one Label of its own; labels from task data are not supported")
    if len(set(labels)) != len(labels):
        raise _unsupported("two Labels of BrushLabels have the same name; make them distinct")
    return labels


def _unsupported(reason: str) -> UnsupportedLabelConfig:
    return UnsupportedLabelConfig(f"label config not supported: {reason}. A config that works: {_EXAMPLE}")
