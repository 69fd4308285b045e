"""Which label configs are understood, and what the others are told."""

import pytest

from backend.label_studio.errors import UnsupportedLabelConfig
from backend.label_studio.label_config import LabelConfig, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
BRUSH = '<BrushLabels name="brush" toName="image"><Label value="Lesion"/><Label value="Organ"/></BrushLabels>'


def test_the_brush_its_image_and_its_labels_are_found():
    config = parse_label_config(f"<View>{IMAGE}{BRUSH}</View>")
    assert config == LabelConfig("brush", "image", "image", ("Lesion", "Organ"))


def test_other_controls_may_be_there_and_lend_no_labels():
    boxes = '<RectangleLabels name="box" toName="image" smart="true"><Label value="Tool"/></RectangleLabels>'
    config = parse_label_config(f"<View><Header value='Paint'/>{boxes}{IMAGE}<View>{BRUSH}</View></View>")
    assert config.labels == ("Lesion", "Organ")


def test_tag_and_attribute_names_match_without_case_and_an_alias_replaces_its_label():
    xml = (
        '<view><image name="scan" value="$photo-url"/><brushlabels name="b" toname="scan">'
        '<label value="Lésion" alias="lesion"/></brushlabels></view>'
    )
    assert parse_label_config(xml) == LabelConfig("b", "scan", "photo-url", ("lesion",))


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "well-formed"),
        ("<View>", "well-formed"),
        ("<View>\x00</View>", "well-formed"),
        ("<View/>", "exactly one BrushLabels"),
        (f"<View>{IMAGE}</View>", "exactly one BrushLabels"),
        (f"<View>{IMAGE}{BRUSH}{BRUSH}</View>", "has 2"),
        (f"<View>{BRUSH}</View>", "exactly one Image"),
        (f"<View>{IMAGE}{IMAGE}{BRUSH}</View>", "exactly one Image"),
        (f"<View>{BRUSH}<Image name='image' valueList='$images'/></View>", "valueList"),
        (f"<View>{BRUSH}<Image name='image' value='image'/></View>", r"\$image"),
        (f"<View>{BRUSH}<Image name='image' value='$a.b'/></View>", "one key"),
        (f"<View>{BRUSH}<Image name='image'/></View>", "'value'"),
        (f"<View>{BRUSH}<Image name='scan' value='$image'/></View>", "toName='scan'"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image'/></View>", "at least one Label"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image' value='$labels'/></View>", "task data"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image'><Label/></BrushLabels></View>", "'value'"),
        (f"<View>{IMAGE}{BRUSH.replace('Organ', 'Lesion')}</View>", "same name"),
    ],
)
def test_anything_else_is_told_what_to_change(xml, reason):
    with pytest.raises(UnsupportedLabelConfig, match=reason) as caught:
        parse_label_config(xml)
    parse_label_config(str(caught.value).partition("works: ")[2])  # the cure in the message is one


def test_entities_are_never_expanded():
    entities = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
    bomb = f'<!DOCTYPE View [<!ENTITY e0 "x">{entities}]><View>&e9;</View>'
    with pytest.raises(UnsupportedLabelConfig, match="DOCTYPE"):
        parse_label_config(bomb)
