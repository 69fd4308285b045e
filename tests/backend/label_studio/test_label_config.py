"""Which label configs are understood, and what the others are told."""

import pytest

from backend.label_studio.errors import UnsupportedLabelConfig
from backend.label_studio.label_config import Control, LabelConfig, SmartTool, parse_label_config

IMAGE = '<Image name="image" value="$image"/>'
BRUSH = '<BrushLabels name="brush" toName="image"><Label value="Lesion"/><Label value="Organ"/></BrushLabels>'
POLYGON = '<PolygonLabels name="outline" toName="image"><Label value="Organ"/><Label value="Bone"/></PolygonLabels>'
SMART_BRUSH = BRUSH.replace("toName", 'smart="true" toName')
ASTRAY = POLYGON.replace('toName="image"', 'toName="scan"')
FROM_DATA = BRUSH.replace("toName", 'value="$labels" toName')


def test_the_brush_its_image_and_its_labels_are_found():
    config = parse_label_config(f"<View>{IMAGE}{BRUSH}</View>")
    assert config == LabelConfig("image", "image", (Control("brush", "brush", ("Lesion", "Organ")),))


def test_a_label_is_drawn_with_its_brush_and_with_polygons_only_where_it_has_no_brush():
    config = parse_label_config(f"<View>{IMAGE}{POLYGON}{BRUSH}</View>")
    assert config.labels == ("Organ", "Bone", "Lesion")
    assert {label: config.control_for(label).name for label in config.labels} == {
        "Organ": "brush",
        "Bone": "outline",
        "Lesion": "brush",
    }
    assert [control.kind for control in config.controls] == ["polygon", "brush"]


def test_other_controls_may_be_there_and_lend_no_labels():
    boxes = '<RectangleLabels name="box" toName="image"><Label value="Tool"/></RectangleLabels>'
    report = '<Text name="report" value="$report"/><Choices name="q" toName="report"><Choice value="good"/></Choices>'
    config = parse_label_config(f"<View><Header value='Paint'/>{boxes}{report}{IMAGE}<View>{BRUSH}</View></View>")
    assert config.labels == ("Lesion", "Organ")
    assert config.smart_tools == ()


def test_what_asks_for_suggestions_is_a_smart_tool_and_a_smart_brush_holds_masks_as_well():
    tools = (
        '<RectangleLabels name="box" toName="image" smart="true"><Label value="Lesion"/></RectangleLabels>'
        '<KeyPointLabels name="point" toName="image" smart="True"><Label value="Organ"/></KeyPointLabels>'
    )
    config = parse_label_config(f"<View>{IMAGE}{tools}{SMART_BRUSH}</View>")
    assert config.smart_tools == (
        SmartTool("box", "rectangle", ("Lesion",)),
        SmartTool("point", "keypoint", ("Organ",)),
        SmartTool("brush", "brush", ("Lesion", "Organ")),
    )
    assert config.controls == (Control("brush", "brush", ("Lesion", "Organ")),)


def test_tag_and_attribute_names_match_without_case_and_an_alias_replaces_its_label():
    xml = (
        '<view><image name="scan" value="$photo-url"/><brushlabels name="b" toname="scan">'
        '<label value="Lésion" alias="lesion"/></brushlabels></view>'
    )
    assert parse_label_config(xml) == LabelConfig("scan", "photo-url", (Control("b", "brush", ("lesion",)),))


def test_a_label_may_carry_its_prompt_and_the_first_of_two_counts():
    painted = BRUSH.replace('value="Lesion"', 'value="Lesion" prompt=" a dark {label} "')
    outlined = POLYGON.replace('value="Organ"', 'value="Organ" prompt="the liver"')
    both = painted.replace('value="Organ"', 'value="Organ" prompt="a liver"')
    assert parse_label_config(f"<View>{IMAGE}{painted}{outlined}</View>").prompts == {
        "Lesion": "a dark {label}",
        "Organ": "the liver",
    }
    assert parse_label_config(f"<View>{IMAGE}{both}{outlined}</View>").prompts["Organ"] == "a liver"


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("", "well-formed"),
        ("<View>", "well-formed"),
        ("<View>\x00</View>", "well-formed"),
        ("<View/>", "BrushLabels or PolygonLabels"),
        (f"<View>{IMAGE}</View>", "BrushLabels or PolygonLabels"),
        (f"<View>{IMAGE}{BRUSH}{BRUSH}</View>", "same name"),
        (f"<View>{BRUSH}</View>", "exactly one Image"),
        (f"<View>{IMAGE}{IMAGE}{BRUSH}</View>", "exactly one Image.*one task per image"),
        (f"<View>{BRUSH}<Image name='image' valueList='$images'/></View>", "valueList"),
        (f"<View>{BRUSH}<Image name='image' value='image'/></View>", r"\$image"),
        (f"<View>{BRUSH}<Image name='image' value='$a.b'/></View>", "one key"),
        (f"<View>{BRUSH}<Image name='image'/></View>", "'value'"),
        (f"<View>{BRUSH}<Image name='scan' value='$image'/></View>", "toName='scan'"),
        (f"<View>{BRUSH}{IMAGE}{ASTRAY}</View>", "PolygonLabels must have"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image'/></View>", "at least one Label"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image' value='$labels'/></View>", "task data"),
        (f"<View>{IMAGE}{FROM_DATA}</View>", "task data"),
        (f"<View>{IMAGE}<BrushLabels name='b' toName='image'><Label/></BrushLabels></View>", "'value'"),
        (f"<View>{IMAGE}{BRUSH.replace('Organ', 'Lesion')}</View>", "same name"),
        (f"<View>{IMAGE}<Labels name='l' toName='image'/><Polygon name='p' toName='image'/></View>", "with Polygon"),
        (f"<View>{IMAGE}{BRUSH}<BitmaskLabels name='p' toName='image'/></View>", "with BitmaskLabels"),
        (f"<View>{IMAGE}{BRUSH}<MagicWand name='p' toName='image'/></View>", "with MagicWand"),
        (f"<View>{IMAGE}{BRUSH}<Pdf name='p' value='$pdf'/></View>", "Pdf is not supported"),
        (f"<View>{BRUSH}<Video name='image' value='$video'/></View>", "Video is not supported"),
        (f"<View>{BRUSH}<Paragraphs name='image' value='$text'/></View>", "Paragraphs is not supported"),
        (f"<View><Repeater on='$pages'>{IMAGE}{BRUSH}</Repeater></View>", "Repeater is not supported"),
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
