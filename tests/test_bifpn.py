from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models.bifpn import LEAK, BiFPN, Neck, Separable, down, fuse, initialised, up

EPS = 1e-4


def constants(*values: float) -> list[Tensor]:
    """Four (1, 1, side, side) maps, each of one value, on strides 4, 8, 16 and 32 of a 32 px image."""
    return [torch.full((1, 1, side, side), value) for side, value in zip((8, 4, 2, 1), values, strict=True)]


def passing_block() -> BiFPN:
    """A block whose nodes pass a positive map through unchanged: only the fusion is left."""
    block = BiFPN(1)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    return block


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1.0, 1.0], (2 + 6) / (2 + EPS)),
        ([3.0, 1.0], (3 * 2 + 6) / (4 + EPS)),
        ([3.0, -5.0], 3 * 2 / (3 + EPS)),
        ([0.0, 0.5], 0.5 * 6 / (0.5 + EPS)),
        ([-1.0, -2.0], 0.0),
    ],
    ids=["as it starts", "uneven", "negative counts as 0", "zero", "all negative"],
)
def test_fusion(weights: list[float], expected: float) -> None:
    maps = [torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 6.0)]
    fused = fuse(maps, torch.tensor(weights))
    torch.testing.assert_close(fused, torch.full((1, 1, 2, 2), expected))


def test_up_repeats_and_down_takes_every_second() -> None:
    small = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    large = up(small)
    assert large[0, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert torch.equal(down(large), small)
    assert down(torch.arange(16.0).reshape(1, 1, 4, 4))[0, 0].tolist() == [[0, 2], [8, 10]]


def test_a_separable_block_is_its_convolutions_one_after_the_other() -> None:
    block = Separable(5, 7).double()
    nn.init.normal_(block[0].weight)
    maps = torch.randn(2, 5, 3, 4).double().requires_grad_()
    plain = nn.Sequential(*block)
    gradients = [torch.autograd.grad(way(maps).square().sum(), (maps, *block.parameters())) for way in (block, plain)]
    torch.testing.assert_close(block(maps), plain(maps))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_separable_block_is_scale_mix_and_leak() -> None:
    block = Separable(2, 1)
    nn.init.constant_(block[0].weight, 3.0)
    block[1].weight.data = torch.tensor([1.0, -2.0]).reshape(1, 2, 1, 1)
    maps = torch.tensor([[5.0, 1.0], [1.0, 4.0]]).reshape(2, 2, 1, 1)
    assert block(maps).flatten().tolist() == pytest.approx([3 * (5 - 2), LEAK * 3 * (1 - 8)])
    assert [name for name, _ in block.named_parameters()] == ["0.weight", "1.weight"]


def test_fusion_weights_start_at_one() -> None:
    block = BiFPN(8)
    assert torch.equal(block.top_down_weights, torch.ones(2, 3))
    assert torch.equal(block.bottom_up_weights, torch.ones(3, 3))


def test_a_block_by_hand() -> None:
    block = passing_block()
    block.top_down_weights.data = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    block.bottom_up_weights.data = torch.tensor([[1.0, 4.0, 7.0], [2.0, 5.0, 8.0], [3.0, 6.0, 9.0]])
    a, b, c, d = 1.0, 10.0, 100.0, 1000.0
    td_16 = (1 * c + 4 * d) / (5 + EPS)
    td_8 = (2 * b + 5 * td_16) / (7 + EPS)
    out_4 = (3 * a + 6 * td_8) / (9 + EPS)
    out_8 = (1 * b + 2 * td_8 + 3 * out_4) / (6 + EPS)
    out_16 = (4 * c + 5 * td_16 + 6 * out_8) / (15 + EPS)
    out_32 = (7 * d + 8 * d + 9 * out_16) / (24 + EPS)
    outputs = block(constants(a, b, c, d))
    for output, expected in zip(outputs, constants(out_4, out_8, out_16, out_32), strict=True):
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize(
    ("cut", "reached"),
    [
        (None, [[4, 8, 16, 32], [4, 8, 16, 32], [4, 8, 16, 32], [4, 8, 16, 32]]),
        ("from below", [[4, 8, 16, 32], [8, 16, 32], [16, 32], [32]]),
        ("from above", [[4], [4, 8], [4, 8, 16], [4, 8, 16, 32]]),
    ],
    ids=["whole", "no way from fine to coarse", "no way from coarse to fine"],
)
def test_what_each_output_depends_on(cut: str | None, reached: list[list[int]]) -> None:
    block = BiFPN(8)
    if cut == "from below":
        block.bottom_up_weights.data[2] = 0
    if cut == "from above":
        block.top_down_weights.data[1] = 0
    inputs = [torch.rand(1, 8, side, side, requires_grad=True) for side in (8, 4, 2, 1)]
    for output, strides in zip(block(inputs), reached, strict=True):
        gradients = torch.autograd.grad(output.sum(), inputs, retain_graph=True, allow_unused=True)
        found = [
            stride
            for stride, gradient in zip((4, 8, 16, 32), gradients, strict=True)
            if gradient is not None and gradient.abs().sum() > 0
        ]
        assert found == strides


@pytest.mark.parametrize(
    ("layer", "side"),
    [
        (nn.Conv2d(64, 256, 3, padding=1), 16),
        (nn.ConvTranspose2d(64, 256, 4, stride=2, padding=1), 16),
        (nn.Linear(1024, 512), None),
    ],
    ids=["convolution", "transposed", "linear"],
)
def test_a_started_layer_keeps_the_size_of_a_rectified_signal(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, side: int | None
) -> None:
    torch.manual_seed(0)
    signal = torch.randn(8, 1024) if side is None else torch.randn(4, 64, side, side)
    with torch.no_grad():
        output = initialised(layer)(signal.relu())
    inside = output if side is None else output[..., 2:-2, 2:-2]
    assert inside.std().item() == pytest.approx(1.0, abs=0.1)  # E[relu(x)^2] = 1/2, times gain^2 = 2
    assert torch.count_nonzero(layer.bias) == 0


def test_the_neck_hands_on_what_it_gets_and_does_not_drown_it() -> None:
    torch.manual_seed(0)
    neck = Neck((8, 16, 32, 64), 64)
    maps = [torch.rand(2, channels, side, side) for channels, side in zip((8, 16, 32, 64), (16, 8, 4, 2), strict=True)]
    with torch.no_grad():
        outputs = neck(maps)
    assert [tuple(output.shape) for output in outputs] == [(2, 64, side, side) for side in (16, 8, 4, 2)]
    assert all(0.05 < (output[0] - output[1]).std() < 2 for output in outputs)
