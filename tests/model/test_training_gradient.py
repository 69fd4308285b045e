"""The gradient of a batch is the same in any division, memory that runs short only makes the pieces smaller, and
what a pass through the network calculates in, and drops, is as asked for."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from model import OutOfMemory, Progress, distributed, fine_tune, gradient, validation
from model.backbones.tiny import TinyTowers
from model.batches import TrainingSet, batch
from model.gradient import Looker, batch_gradient
from model.losses import bce_loss, dice_loss, row_dice_loss, soft_contrastive_loss
from model.network import Network
from tests.model.runs import SHORT, distance, same, small, weights

BRIEF = dataclasses.replace(SHORT, max_steps=3)
# A heavy contrast, so that a mistake in it cannot hide behind the other terms.
CONTRASTED = dataclasses.replace(BRIEF, batch_size=6, contrastive_weight=3.0)


@pytest.fixture(scope="module")
def start():
    return small()


@pytest.fixture(scope="module")
def several_prompts(examples):
    return [dataclasses.replace(e, prompt=f"disc {['bright', 'dark', 'big'][i % 3]}") for i, e in enumerate(examples)]


def gradient_of(start, examples, config, micro_batch_size):
    data = TrainingSet.load(examples, start.config)
    looker = Looker(start, batch(data, config, 0, start.device), config, 0)
    loss = batch_gradient(looker, micro_batch_size)
    return loss, {n: p.grad.clone() for n, p in start.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("dice", ["image", "row"])
@pytest.mark.parametrize("micro_batch_size", [1, 4])
def test_the_gradient_of_pieces_adds_up_to_that_of_the_batch(start, several_prompts, dice, micro_batch_size):
    config = dataclasses.replace(CONTRASTED, dice=dice)
    loss, undivided = gradient_of(start, several_prompts, config, 6)
    in_pieces, divided = gradient_of(start, several_prompts, config, micro_batch_size)
    assert in_pieces == pytest.approx(loss, rel=1e-5)
    assert divided.keys() == undivided.keys()
    for name, expected in undivided.items():
        scale = max(expected.abs().max().item(), 1e-3)
        assert (divided[name] - expected).abs().max().item() < 2e-4 * scale, name


@pytest.mark.parametrize("world", [2, 4, 8])
def test_the_gradients_of_all_processes_add_up_to_that_of_the_batch(start, several_prompts, monkeypatch, world):
    """Also where six images leave two of eight processes without any."""
    data = TrainingSet.load(several_prompts, start.config)
    looker = Looker(start, batch(data, CONTRASTED, 0, start.device), CONTRASTED, 0)
    batch_gradient(looker, 6)
    expected = {n: p.grad.clone() for n, p in start.network.named_parameters() if p.grad is not None}
    with torch.no_grad():
        features = looker.look(slice(0, 6)).features
    monkeypatch.setattr(gradient, "_gather", lambda *_: features)
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    total = dict.fromkeys(expected, 0.0)
    for rank in range(world):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        batch_gradient(looker, 6)
        for name in total:
            total[name] = total[name] + start.network.get_parameter(name).grad
    for name, whole in expected.items():
        scale = max(whole.abs().max().item(), 1e-3)
        assert (total[name] - whole).abs().max().item() < 2e-4 * scale, name


@pytest.mark.parametrize(("name", "dice"), [("image", dice_loss), ("row", row_dice_loss)])
def test_the_loss_is_the_weighted_sum_of_its_terms(start, several_prompts, name, dice):
    config = dataclasses.replace(CONTRASTED, dice=name, dice_weight=0.7, bce_weight=0.2)
    data = TrainingSet.load(several_prompts, start.config)
    looker = Looker(start, batch(data, config, 0, start.device), config, 0)
    outputs = []
    hook = start.network.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    loss = batch_gradient(looker, 6)
    hook.remove()
    (output,) = outputs
    logits, masks = output.logits[:, None], looker.batch.masks
    contrast = soft_contrastive_loss(output.patches, output.text, start.config.temperature)
    expected = 0.7 * dice(logits, masks) + 0.2 * bce_loss(logits, masks) + 3.0 * contrast
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_training_in_small_pieces_ends_with_nearly_the_same_weights(start, several_prompts):
    config = dataclasses.replace(BRIEF, learning_rate=1e-4)
    whole = weights(fine_tune(start, several_prompts, config))
    pieces = weights(fine_tune(start, several_prompts, dataclasses.replace(config, micro_batch_size=1)))
    assert distance(whole, pieces) < 0.1 * distance(whole, weights(start))


# ----------------------------------------------------------------------------------------------------------- memory


def short_of_memory(monkeypatch, rows_that_fit, error, from_call=0):
    """The network fails with more rows than fit, from its so-manieth pass on. Returns the rows of every pass."""
    forward, asked = Network.forward, []

    def limited(self, images, tokens, *others):
        asked.append(len(tokens))
        if len(asked) > from_call and len(tokens) > rows_that_fit:
            raise error
        return forward(self, images, tokens, *others)

    monkeypatch.setattr(Network, "forward", limited)
    return asked


GPU = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
CPU = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate")


@pytest.mark.parametrize("error", [GPU, CPU, MemoryError()])
def test_when_memory_runs_short_the_run_goes_on_in_half_the_pieces(start, several_prompts, monkeypatch, error):
    expected = weights(fine_tune(start, several_prompts, dataclasses.replace(BRIEF, micro_batch_size=2)))
    asked = short_of_memory(monkeypatch, 2, error)
    seen: list[Progress] = []
    answer = fine_tune(start, several_prompts, BRIEF, on_progress=seen.append)
    assert asked[0] == 4 and set(asked[1:]) == {2}
    assert [p.step for p in seen] == [1, 2, 3] and {p.micro_batch_size for p in seen} == {2}
    assert same(weights(answer), expected)


@pytest.mark.parametrize("from_call", [5, 7])
def test_a_pass_that_fails_in_the_middle_of_a_step_teaches_nothing_twice(
    start, several_prompts, monkeypatch, from_call
):
    """With pieces of 2 a step has two passes to gather features and two to learn: the failures meet each of them."""
    config = dataclasses.replace(BRIEF, micro_batch_size=2, max_steps=3, learning_rate=1e-4)
    whole = weights(fine_tune(start, several_prompts, config))
    asked = short_of_memory(monkeypatch, 1, GPU, from_call)
    answer = weights(fine_tune(start, several_prompts, config))
    assert asked[from_call] == 2 and set(asked[from_call + 1 :]) == {1}
    assert distance(whole, answer) < 0.1 * distance(whole, weights(start))


def test_memory_too_short_for_one_image_is_named_with_its_cure(start, examples, monkeypatch):
    asked = short_of_memory(monkeypatch, 0, GPU)
    with pytest.raises(OutOfMemory, match=r"one image at a time .*image_size_px"):
        fine_tune(start, examples, BRIEF)
    assert asked == [4, 2, 1]


def test_other_errors_of_the_network_are_not_taken_for_short_memory(start, examples, monkeypatch):
    asked = short_of_memory(monkeypatch, 0, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        fine_tune(start, examples, BRIEF)
    assert asked == [4]


# ------------------------------------------------------------------------------------------- precision and dropout


def test_bfloat16_stays_inside_the_network(start, examples):
    config = dataclasses.replace(BRIEF, precision="bf16", max_steps=2)
    answer = fine_tune(start, examples, config)
    exact = fine_tune(start, examples, dataclasses.replace(config, precision="fp32"))
    assert 0 < distance(weights(answer), weights(exact)) < distance(weights(exact), weights(start))
    assert {p.dtype for p in answer.network.parameters()} == {torch.float32}


def test_losses_are_computed_in_full_precision(start, examples):
    data = TrainingSet.load(examples, start.config)
    config = dataclasses.replace(BRIEF, precision="bf16")
    view = Looker(start, batch(data, config, 0, start.device), config, 0).look(slice(0, 4))
    assert {t.dtype for t in (view.logits, view.features.images, view.features.text)} == {torch.float32}
    rounded = view.logits.bfloat16().float()
    # What came out of the bilinear resize at the end was calculated in bfloat16, or nothing was.
    assert torch.equal(rounded, view.logits)


def test_on_a_cpu_automatic_precision_is_full_precision(start, examples):
    one, other = (
        weights(fine_tune(start, examples, dataclasses.replace(BRIEF, precision=name))) for name in ("auto", "fp32")
    )
    assert same(one, other)


@pytest.fixture
def forgetful(monkeypatch):
    """A start whose towers are frozen and have dropout in the text, as a BERT has."""
    block = TinyTowers.text_block
    monkeypatch.setattr(TinyTowers, "frozen", True)
    monkeypatch.setattr(
        TinyTowers,
        "text_block",
        lambda self, *inputs: F.dropout(block(self, *inputs), 0.3, training=self.training),
    )
    return small()


@pytest.mark.usefixtures("forgetful")
def test_frozen_towers_drop_nothing_unless_asked(forgetful, examples):
    quiet = weights(fine_tune(forgetful, examples, BRIEF))
    config = dataclasses.replace(BRIEF, tower_dropout=True)
    state = torch.get_rng_state()
    one = weights(fine_tune(forgetful, examples, config))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert same(one, weights(fine_tune(forgetful, examples, config)))
    assert not same(one, quiet)
    assert not forgetful.network.towers.training
    towers = [name for name in one if name.startswith("towers.")]
    assert all(torch.equal(one[name], weights(forgetful)[name]) for name in towers)


def test_frozen_towers_are_quiet_again_after_a_run_that_failed(forgetful, examples, monkeypatch):
    short_of_memory(monkeypatch, 0, RuntimeError("broken"))
    with pytest.raises(RuntimeError):
        fine_tune(forgetful, examples, dataclasses.replace(BRIEF, tower_dropout=True))
    assert not any(module.training for module in forgetful.network.modules())


def test_validation_drops_nothing(forgetful, examples, monkeypatch):
    forgetful.network.train()
    forgetful.network.towers.train()
    block, dropping = TinyTowers.text_block, []

    def listen(self, *inputs):
        dropping.append(self.training)
        return block(self, *inputs)

    monkeypatch.setattr(TinyTowers, "text_block", listen)
    validation.mean_dice(forgetful, TrainingSet.load(examples, forgetful.config), BRIEF, 0, 4)
    assert dropping and not any(dropping)


def test_without_dropout_a_run_is_that_of_towers_without_any(forgetful, examples, monkeypatch):
    quiet = weights(fine_tune(forgetful, examples, BRIEF))
    monkeypatch.setattr(F, "dropout", lambda tensor, *_, **__: tensor)
    assert same(quiet, weights(fine_tune(forgetful, examples, BRIEF)))
