"""The two recipes are what the documentation says they are, field by field."""

import dataclasses
from pathlib import Path

import pytest

from model import BadConfig, ModelConfig, TrainConfig, recipes

DOCS = Path(__file__).resolve().parents[2] / "docs/recipes.md"


def test_corrected_is_the_default_of_everything():
    assert recipes.get("corrected").train_config() == TrainConfig()
    assert recipes.get("corrected").model_config(backbone="tiny") == ModelConfig()
    assert recipes.get("corrected").model_config() == ModelConfig(backbone="unimedclip")


def test_released_is_the_released_code():
    model, training = recipes.get("released").model_config(), recipes.get("released").train_config()
    assert (model.backbone, model.fit, model.shrinking) == ("unimedclip", "squash", "point")
    assert (model.channels, model.statistics, model.padding) == ("bgr", "imagenet", "attended")
    assert (training.dice, training.augmentation, training.tower_dropout) == ("row", "rotation", True)
    assert (training.batch_size, training.short_batch, training.epochs, training.max_steps) == (24, "keep", 100, None)
    assert (training.learning_rate, training.rate_schedule, training.weight_decay) == (3e-4, "epoch_cosine", 0)
    assert 3e-4 * training.final_rate_share == pytest.approx(1e-4)
    assert (training.keep, training.validation_draws, training.patience) == ("last", 1, None)
    assert (training.precision, training.max_gradient_norm, training.time_limit_seconds) == ("fp32", None, None)
    assert (training.dice_weight, training.bce_weight, training.contrastive_weight) == (0.5, 0.5, 0.1)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_field_may_be_set_otherwise_and_an_unknown_one_is_named(name):
    recipe = recipes.get(name)
    assert recipe.train_config(epochs=3).epochs == 3
    assert recipe.model_config(backbone="tiny", channels="rgb").channels == "rgb"
    with pytest.raises(BadConfig, match="taste"):
        recipe.train_config(taste=1)
    with pytest.raises(BadConfig, match="taste"):
        recipe.model_config(taste=1)


def test_an_unknown_recipe_is_named_beside_the_known():
    with pytest.raises(BadConfig, match=r"'soup'.*corrected, released"):
        recipes.get("soup")


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_no_field_of_a_recipe_repeats_its_default(recipe):
    for fields, defaults in ((recipe.model, ModelConfig()), (recipe.training, TrainConfig())):
        assert all(getattr(defaults, name) != value for name, value in fields.items())


def test_the_documentation_names_every_field_with_the_value_of_each_recipe():
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if len(cells) >= 3 and line.startswith("| `"):
            rows[cells[0]] = cells[1:3]
    released, corrected = recipes.get("released"), recipes.get("corrected")
    for theirs, ours in (
        (released.model_config(), corrected.model_config()),
        (released.train_config(), corrected.train_config()),
    ):
        for field in dataclasses.fields(theirs):
            one, other = getattr(ours, field.name), getattr(theirs, field.name)
            if one != other:
                assert rows[field.name] == [_shown(one), _shown(other)], field.name


def _shown(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
