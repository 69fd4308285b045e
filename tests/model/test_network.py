"""The network's parts against slow references written down independently, and its laws."""

import math

import numpy as np
import pytest
import torch

from model import BadConfig, ModelConfig, Segmenter, UnknownBackbone, backbones
from model.network import Adapter, ProbabilisticAttention
from model.noise import SharedNoise


def rows_of(linear, x):
    """A linear layer as numpy, in double precision."""
    bias = 0 if linear.bias is None else linear.bias.detach().numpy().astype(float)
    return x @ linear.weight.detach().numpy().astype(float).T + bias


def normed(norm, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + norm.eps)
    return scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def reference_attention(layer, query, context, noise, visible):
    """One image at a time, one query at a time, one key at a time."""
    width, beta = query.shape[-1], layer.beta
    answers = np.zeros_like(query)
    for b in range(len(query)):
        keys, values = rows_of(layer.k_proj, context[b]), rows_of(layer.v_proj, context[b])
        key_mean, value_mean = normed(layer.norm_k, keys[:, :width]), normed(layer.norm_v, values[:, :width])
        key_variance = np.log1p(np.exp(keys[:, width:])) + 1e-6
        value_variance = np.log1p(np.exp(values[:, width:])) + 1e-6
        drawn = value_mean + np.sqrt(value_variance) * noise[b]
        gate = 1 / (1 + math.exp(-layer.gate.item()))
        for n in range(query.shape[1]):
            q = rows_of(layer.q_proj, query[b, n])
            weights = np.zeros(len(drawn))
            for m in range(len(drawn)):
                mean = sum(q[c] * key_mean[m, c] for c in range(width)) / math.sqrt(width)
                variance = sum(q[c] ** 2 * key_variance[m, c] for c in range(width)) / width
                weights[m] = math.exp(mean - beta * math.sqrt(variance)) if visible[b, m] else 0.0
            output = rows_of(layer.out_proj, (weights / weights.sum()) @ drawn)
            answers[b, n] = gate * output + (1 - gate) * query[b, n]
    return answers


def attention(width=6, beta=2.35, gate_init=0.4):
    torch.manual_seed(3)
    layer = ProbabilisticAttention(width, beta, gate_init)
    for norm in (layer.norm_k, layer.norm_v):
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    return layer


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    query, context, noise = (rng.normal(size=shape) for shape in ((2, 5, 6), (2, 4, 6), (2, 4, 6)))
    visible = np.array([[True, True, True, False], [True, True, False, False]])
    return query, context, noise, visible


def as_torch(*arrays):
    return [torch.from_numpy(a if a.dtype == bool else a.astype(np.float32)) for a in arrays]


@pytest.mark.parametrize("beta", [0.0, 2.35])
@pytest.mark.parametrize("gate_init", [-0.02, 0.0, 0.4])
def test_attention_equals_the_slow_reference(tensors, beta, gate_init):
    layer = attention(beta=beta, gate_init=gate_init)
    with torch.no_grad():
        answer = layer(*as_torch(*tensors))
    np.testing.assert_allclose(answer.numpy(), reference_attention(layer, *tensors), atol=2e-5)


def test_attention_without_noise_takes_the_mean_of_its_draws(tensors):
    layer = attention()
    query, context, noise, visible = as_torch(*tensors)
    with torch.no_grad():
        mean = layer(query, context, None, visible)
        both = layer(query, context, noise, visible) + layer(query, context, -noise, visible)
    torch.testing.assert_close(mean, both / 2, atol=1e-5, rtol=0)


def test_an_uncertain_key_gets_less_attention(tensors):
    query, _, _, visible = as_torch(*tensors)
    layer = attention()
    q, (mean, variance) = layer.q_proj(query), torch.ones(2, 2, 4, 6)
    sure = layer._attention(q, mean, variance, visible)
    variance[:, 1] *= 9
    unsure = layer._attention(q, mean, variance, visible)
    assert (unsure[:, :, 1] < sure[:, :, 1]).all()
    torch.testing.assert_close(unsure.sum(-1), torch.ones(2, 5))


def test_a_closed_gate_hands_back_the_query_itself(tensors):
    query, context, noise, visible = as_torch(*tensors)
    torch.testing.assert_close(attention(gate_init=-40.0)(query, context, noise, visible), query)


def test_text_attends_to_image_tokens_the_text_has_already_updated(segmenter):
    towers = segmenter.network.clip_towers
    torch.manual_seed(0)
    adapter = Adapter(towers, segmenter.config)
    x, t = torch.randn(2, 5, towers.vision_width), torch.randn(2, 3, towers.text_width)
    visible = torch.ones(2, 3, dtype=torch.bool)
    image, text = adapter.proj_vis_down(x), adapter.proj_txt_down(t)
    image = adapter.cross_attn_img_to_txt(image, text, None, visible)
    expected = adapter.proj_vis_up(image), adapter.proj_txt_up(adapter.cross_attn_txt_to_img(text, image, None))
    torch.testing.assert_close(adapter(x, t, visible, None), expected)


def test_padding_changes_nothing(segmenter):
    network, towers = segmenter.network, segmenter.network.clip_towers
    tokens = towers.tokenize(["a bright disc"])
    padded = torch.nn.functional.pad(tokens, (0, towers.context_length - tokens.shape[1]))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        short, long = (
            network(images, t, SharedNoise(0, torch.device("cpu")).of(range(2), 1), 2).logits for t in (tokens, padded)
        )
    torch.testing.assert_close(short, long, atol=1e-4, rtol=0)


def test_many_draws_are_single_draws_put_together(segmenter):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = segmenter.tokenise(["a disc", "another much longer prompt"])
    recorded: list[torch.Tensor] = []

    def recording(rows, width):
        recorded.append(torch.randn(6, rows, width, generator=torch.Generator().manual_seed(len(recorded))))
        return recorded[-1]

    with torch.inference_mode():
        together = segmenter.network(images, tokens, recording, 3).logits.view(3, 2, 64, 64)
        for draw in range(3):
            mine = iter([noise[2 * draw : 2 * draw + 2] for noise in recorded])
            alone = segmenter.network(images, tokens, lambda rows, width, mine=mine: next(mine)).logits
            torch.testing.assert_close(together[draw], alone, atol=1e-4, rtol=0)


def test_noise_asks_twice_per_adapter_for_text_then_image(segmenter):
    asked = []

    def noise(rows, width):
        asked.append((rows, width))
        return torch.zeros(1, rows, width)

    segmenter.network(torch.zeros(1, 3, 64, 64), segmenter.tokenise(["a disc"]), noise)
    assert asked == [(77, 64), (65, 64)] * len(segmenter.config.adapter_layers)


def test_every_trained_weight_takes_part(segmenter):
    network = Segmenter.create(segmenter.config, seed=2).network
    output = network(torch.randn(2, 3, 64, 64), segmenter.tokenise(["a disc", "a polyp"]))
    output.logits.square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == [name for name in idle if name.endswith("norm_k.bias")]


def test_a_frozen_backbone_trains_only_what_is_ours(segmenter):
    config = segmenter.config

    def build(config, source):
        towers = backbones.get("tiny").build(config, source)
        setattr(towers, "frozen", True)  # noqa: B010 (a Module guards its attributes from mypy)
        return towers

    frozen = backbones.Backbone("frozen", 64, 64, (1,), build)
    from model.network import Network

    names = [n for n, p in Network(config, frozen, backbones.Source()).named_parameters() if p.requires_grad]
    assert names and all(name.startswith(("pvl_adapters.", "mask_head.", "upscale.")) for name in names)


def test_unknown_backbone_names_the_known_ones():
    with pytest.raises(UnknownBackbone, match="tiny"):
        Segmenter.create(ModelConfig(backbone="huge"))
    assert "tiny" in backbones.names()


@pytest.mark.parametrize("wrong", [{"image_size_px": 100}, {"adapter_layers": (1, 7)}])
def test_settings_the_backbone_cannot_have_are_refused(wrong):
    with pytest.raises(BadConfig):
        Segmenter.create(ModelConfig(**wrong))
