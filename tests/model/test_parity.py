"""The network gives what the released MedCLIPSeg gives: logits, features, losses and gradients, backbone by backbone.

The weights go the whole way: a `.pth` in the released format is written, read and renamed.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.losses import bce_loss, row_dice_loss, soft_contrastive_loss
from model.released import load_released
from tests.model import goldens

LOGITS = {"atol": 5e-5, "rtol": 1e-4}


@pytest.fixture(scope="module", params=["unimedclip", "biomedclip", "clip"])
def parity(request, tmp_path_factory):
    """The golden, and the network with its weights. One at a time: each is close to a gigabyte."""
    golden = goldens.read(request.param)
    path = tmp_path_factory.mktemp("released") / "MedCLIPSeg_latest.pth"
    torch.save({"model": golden.state, "epoch": 99, "best_dice": np.float64(0.9)}, path)
    segmenter = load_released(path, request.param)
    path.unlink()
    return golden, segmenter.network


def agree(ours, theirs, **tolerance):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, **(tolerance or LOGITS))


@pytest.mark.parametrize("run", ["zero_noise", "noise1000"])
def test_logits_and_text_features_are_the_released_ones(parity, run):
    golden, network = parity
    noise = None if run == "zero_noise" else goldens.RecordedNoise(1000)
    with torch.inference_mode():
        output = network(goldens.image(), torch.from_numpy(golden.outputs["tokens"]).long(), noise)
    agree(output.logits, golden.outputs[f"{run}.seg_logits"])
    agree(output.text, golden.outputs[f"{run}.text_features"])
    if noise is None:
        theirs = golden.outputs["zero_noise.image_features_first8"]
        # Over a BERT the reference keeps the class token in front; the value path of the others has none.
        agree(output.patches[:, :8], theirs) if golden.variant == "clip" else agree(
            output.patches[:, :7], theirs[:, 1:]
        )
    else:
        assert noise.shapes == golden.meta["noise_shapes"]


def test_losses_and_gradients_are_the_released_ones(parity):
    golden, network = parity
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == golden.meta["trainable"]
    network.zero_grad()
    network.train()
    tokens = torch.from_numpy(golden.outputs["tokens"]).long()
    output = network(goldens.image(), tokens, goldens.RecordedNoise(golden.meta["train"]["noise_base"]))
    overlap = row_dice_loss(output.logits, goldens.mask())
    cross_entropy = bce_loss(output.logits[:, None], goldens.mask()[:, None])
    contrast = soft_contrastive_loss(output.patches, output.text, 0.2)
    total = 0.5 * overlap + 0.5 * cross_entropy + 0.1 * contrast
    ours = {"dice_loss": overlap, "bce": cross_entropy, "contrastive": contrast, "total": total}
    assert {n: v.item() for n, v in ours.items()} == pytest.approx({n: golden.meta["train"][n] for n in ours}, abs=1e-5)
    total.backward()
    norms = {released_name(n): p.grad.norm().item() for n, p in trained.items() if not n.endswith("norm_k.bias")}
    expected = {n: v for n, v in golden.meta["grad_norms"].items() if not n.endswith("norm_k.bias")}
    # A gate's gradient is one sum in which much cancels: 2e-4 of it carries 2e-7 of rounding, kernel by kernel.
    assert norms == pytest.approx(expected, rel=1e-3, abs=5e-7)


def released_name(name):
    """What the released code calls one of our parameters."""
    name = name.replace("proj_vis_down.weight", "proj_vis_down.0.weight")
    return name.replace(".cross_attn_", ".two_way.cross_attn_")


def test_trimming_the_text_changes_nothing_once_padding_is_masked(parity):
    golden, network = parity
    tokens = torch.from_numpy(golden.outputs["tokens"]).long()
    trimmed = tokens[:, : int((tokens != 0).sum(1).max())]
    assert trimmed.shape[1] < tokens.shape[1]
    attended = network.config
    object.__setattr__(network, "config", type(attended)(**{**attended.to_dict(), "padding": "masked"}))
    try:
        with torch.inference_mode():
            short, long = (network(goldens.image(), t, goldens.RecordedNoise(0)).logits for t in (trimmed, tokens))
    finally:
        object.__setattr__(network, "config", attended)
    # The noise of a text token is drawn for the whole context, so it is the same in both.
    agree(short, F.pad(long, (0, 0)).numpy())
