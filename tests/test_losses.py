from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from shards.settings import build
from train.config import BoxLossWeights
from train.tasks.depth import depth_loss
from train.tasks.segmentation import segmentation_loss
from train.tasks.steering import steering_loss
from train.tasks.yolo_loss import THESIS_CODE_WEIGHTS, boxes_loss, responsible_slots

LN2 = math.log(2)
ALL = torch.ones(1, 1, 2, dtype=torch.bool)


def box_table(*objects: tuple[int, int, int, float, float, float, float, int]) -> Tensor:
    """(1, 8, 8, 10, 19) of objects (row, column, slot, x, y, w, h, class)."""
    table = torch.zeros(1, 8, 8, 10, 19)
    for row, column, slot, x, y, w, h, class_id in objects:
        table[0, row, column, slot, :5] = torch.tensor([1, x, y, w, h])
        table[0, row, column, slot, 5 + class_id] = 1
    return table


def random_tables(batch: int, cells: int, slots: int, classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A prediction, and a target in which each cell holds 0 to `slots` objects, largest first."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, cells, cells, slots, 5 + classes)
    pred = torch.rand(shape, generator=generator, dtype=dtype)
    target = torch.rand(shape, generator=generator, dtype=dtype)
    count = torch.randint(0, slots + 1, (batch, cells, cells, 1), generator=generator)
    target[..., 0] = (torch.arange(slots) < count).to(dtype)
    target[..., 3:5] = target[..., 3:5].sort(dim=3, descending=True).values
    return pred, target * target[..., :1]


# --- steering


def test_steering_is_the_mean_absolute_error_of_a_window() -> None:
    pred = torch.zeros(2, 10)
    target = torch.zeros(2, 10)
    pred[1, 3], target[1, 7] = 2.0, -1.0
    assert steering_loss(pred, target).tolist() == pytest.approx([0.0, 0.3])


# --- segmentation


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([[0, 0]], LN2 / 2 + math.log(4 / 3) / 2),
        ([[0, 1]], LN2 / 2 + math.log(4) / 2),
        ([[255, 1]], math.log(4)),
        ([[0, 255]], LN2),
        ([[255, 255]], 0.0),
    ],
    ids=["both", "another class", "first ignored", "second ignored", "all ignored"],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_segmentation_by_hand(classes: list[list[int]], expected: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([[[[0.0, math.log(3)]], [[0.0, 0.0]]]])  # probabilities (1/2, 1/2) and (3/4, 1/4)
    assert segmentation_loss(logits, torch.tensor([classes], dtype=dtype)).tolist() == pytest.approx([expected])


def test_all_pixels_ignored_has_a_gradient_of_zero() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    classes = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    classes[1, 0, 0] = 2
    segmentation_loss(logits, classes).sum().backward()
    assert logits.grad is not None
    assert torch.count_nonzero(logits.grad[0]) == 0
    assert logits.grad[1, :, 0, 0].abs().min() > 0


# --- depth


@pytest.mark.parametrize(
    ("variance_focus", "expected"),
    [(0.85, LN2**2 * (1 / 2 - 0.85 / 4)), (0.5, LN2**2 * 3 / 8), (1.0, LN2**2 / 4), (-1.0, LN2**2 * 3 / 4)],
)
def test_depth_by_hand(variance_focus: float, expected: float) -> None:
    pred, target = torch.tensor([[[0.4, 0.3]]]), torch.tensor([[[0.2, 0.3]]])  # g = ln 2 and 0
    assert depth_loss(pred, target, ALL, variance_focus).tolist() == pytest.approx([expected])


@pytest.mark.parametrize(("variance_focus", "expected"), [(1.0, 0.0), (0.85, 0.15 * LN2**2)])
def test_a_global_scale_costs_nothing_at_one(variance_focus: float, expected: float) -> None:
    target = torch.rand(1, 8, 8) * 0.4 + 0.05
    valid = torch.ones(1, 8, 8, dtype=torch.bool)
    loss = depth_loss(2 * target, target, valid, variance_focus)
    assert loss.tolist() == pytest.approx([expected], rel=1e-6, abs=1e-12)
    assert (loss >= 0).all()


def test_depth_counts_valid_pixels_only() -> None:
    pred, target = torch.tensor([[[0.4, 0.9]]]), torch.tensor([[[0.2, 0.0]]])
    valid = torch.tensor([[[True, False]]])
    assert depth_loss(pred, target, valid).tolist() == pytest.approx([0.15 * LN2**2])


def test_an_empty_depth_mask_is_zero_with_a_gradient_of_zero() -> None:
    pred = torch.rand(2, 4, 4, requires_grad=True)
    valid = torch.zeros(2, 4, 4, dtype=torch.bool)
    valid[1, 0, 0] = True
    loss = depth_loss(pred, torch.full((2, 4, 4), 0.5), valid)
    loss.sum().backward()
    assert loss[0] == 0
    assert loss[1] > 0
    assert pred.grad is not None
    assert torch.count_nonzero(pred.grad[0]) == 0
    assert torch.count_nonzero(pred.grad[1]) == 1


def test_depth_below_the_floor_is_the_floor() -> None:
    pred = torch.tensor([[[0.0, 1e-4]]], requires_grad=True)
    loss = depth_loss(pred, torch.tensor([[[1e-3, 0.0]]]), ALL)
    loss.sum().backward()
    assert loss.tolist() == [0.0]
    assert pred.grad is not None
    assert torch.isfinite(pred.grad).all()


# --- boxes

ONE = (3, 5, 0, 0.5, 0.25, 0.25, 0.04, 2)


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [ONE],
        [ONE, (3, 5, 1, 0.5, 0.25, 0.125, 0.04, 2)],
        [ONE, (3, 5, 1, *ONE[3:7], 7)],
        [ONE, (3, 5, 1, 0.1, 0.25, 0.04, 0.25, 2), (3, 5, 2, *ONE[3:7], 7)],
        [(row, 7 - row, slot, 0.3, 0.7, 0.9 / (slot + 1), 0.1, slot) for row in range(8) for slot in range(10)],
    ],
    ids=["none", "one", "two in a cell", "a box twice", "a box twice about another", "full cells"],
)
@pytest.mark.parametrize("weights", [BoxLossWeights(), THESIS_CODE_WEIGHTS], ids=["sum", "object mean"])
def test_a_perfect_prediction_costs_nothing(
    objects: list[tuple[int, int, int, float, float, float, float, int]], weights: BoxLossWeights
) -> None:
    target = box_table(*objects)
    assert boxes_loss(target.clone(), target, weights).tolist() == [0.0]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (BoxLossWeights(), 5 * 0.0725 + 0.25 + 0.3125 + 0.5 * 0.36),
        (BoxLossWeights(1, 0, 0, 0), 0.0725),
        (BoxLossWeights(0, 1, 0, 0), 0.25),
        (BoxLossWeights(0, 0, 1, 0), 0.36),
        (BoxLossWeights(0, 0, 0, 1), 0.3125),
        (THESIS_CODE_WEIGHTS, 7 * 0.0725 + 5 * 0.25 + 0.3125 + 5 * 0.36 / 639),
    ],
    ids=["yolo", "coordinates", "objectness", "no object", "classes", "thesis code"],
)
def test_one_object_by_hand(weights: BoxLossWeights, expected: float) -> None:
    pred = torch.zeros(1, 8, 8, 10, 19)
    pred[0, 3, 5, 4, :5] = torch.tensor([0.5, 0.25, 0.25, 0.16, 0.04])  # x is 0.25 off, sqrt(w) 0.1
    pred[0, 3, 5, 4, [5, 7]] = torch.tensor([0.25, 0.5])  # class 0 says 0.25, class 2 says 0.5
    pred[0, 6, 1, 9, 0] = 0.6  # an object where there is none
    assert boxes_loss(pred, box_table(ONE), weights).tolist() == pytest.approx([expected])


def test_object_mean_is_a_mean_over_objects() -> None:
    one, two = box_table(ONE), box_table(ONE, (0, 0, 0, *ONE[3:]))
    weights = BoxLossWeights(lambda_noobj=0, reduction="object mean")
    pred = torch.zeros(1, 8, 8, 10, 19)
    assert boxes_loss(pred, two, weights).tolist() == pytest.approx(boxes_loss(pred, one, weights).tolist())


def test_without_objects_only_objectness_costs() -> None:
    pred = torch.rand(1, 8, 8, 10, 19, requires_grad=True)
    loss = boxes_loss(pred, torch.zeros(1, 8, 8, 10, 19))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([0.5 * pred[..., 0].square().sum().item()])
    assert pred.grad is not None
    torch.testing.assert_close(pred.grad[..., 0], pred.detach()[..., 0])
    assert torch.count_nonzero(pred.grad[..., 1:]) == 0


def test_the_largest_object_chooses_first() -> None:
    target = box_table((2, 2, 0, 0.5, 0.5, 0.2, 0.2, 0), (2, 2, 1, 0.5, 0.5, 0.18, 0.18, 1))
    pred = torch.zeros(1, 8, 8, 10, 19)
    pred[0, 2, 2, 6, 1:5] = torch.tensor([0.5, 0.5, 0.19, 0.19])  # the best for both
    pred[0, 2, 2, 3, 1:5] = torch.tensor([0.5, 0.5, 0.10, 0.10])
    slot_of, taken = responsible_slots(pred, target)
    assert slot_of[0, 2, 2, :2].tolist() == [6, 3]
    assert taken.nonzero().tolist() == [[0, 2, 2, 3], [0, 2, 2, 6]]


def plain_iou(first: list[float], second: list[float]) -> float:
    """Of (x, y, w, h), x and y in cells of an eighth of the image."""
    sides = []
    for axis in (0, 1):
        low = max(first[axis] / 8 - first[axis + 2] / 2, second[axis] / 8 - second[axis + 2] / 2)
        high = min(first[axis] / 8 + first[axis + 2] / 2, second[axis] / 8 + second[axis + 2] / 2)
        sides.append(max(0.0, high - low))
    shared = sides[0] * sides[1]
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def test_the_responsible_slot_is_the_free_one_with_the_best_iou() -> None:
    pred, target = random_tables(2, 8, 10, 1, torch.float64)
    slot_of, taken = responsible_slots(pred, target)
    for b, row, column in torch.cartesian_prod(torch.arange(2), torch.arange(8), torch.arange(8)).tolist():
        predictions, objects = pred[b, row, column].tolist(), target[b, row, column].tolist()
        free = list(range(10))
        for k, thing in enumerate(objects):
            if thing[0] == 0:
                assert slot_of[b, row, column, k] == 0
                continue
            best = max(free, key=lambda slot: plain_iou(predictions[slot][1:5], thing[1:5]))
            assert slot_of[b, row, column, k] == best
            free.remove(best)
        assert (~taken[b, row, column]).nonzero().flatten().tolist() == free


def test_a_size_that_underflows_has_a_finite_gradient() -> None:
    raw = torch.full((1, 8, 8, 10, 19), -200.0, requires_grad=True)
    sizes = torch.nn.functional.softplus(raw[..., 3:5])
    assert torch.count_nonzero(sizes) == 0
    boxes_loss(torch.cat([raw[..., :3], sizes, raw[..., 5:]], -1), box_table(ONE)).sum().backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


@pytest.mark.parametrize("width", [1e-6, 1e-30])
def test_a_small_size_has_a_bounded_gradient_that_makes_it_grow(width: float) -> None:
    pred = box_table((3, 5, 0, 0.5, 0.25, width, 0.04, 2)).requires_grad_()
    boxes_loss(pred, box_table(ONE)).sum().backward()
    assert pred.grad is not None
    assert -30_000 < pred.grad[0, 3, 5, 0, 3] < -1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lambda_coord": -1.0}, "box_loss.lambda_coord must be at least 0, got -1.0: it weighs a squared error"),
        ({"lambda_noobj": math.nan}, "box_loss.lambda_noobj must be a number, got nan: it weighs a squared error"),
        ({"reduction": "mean"}, "box_loss.reduction must be one of sum, object mean, got 'mean'"),
    ],
    ids=["negative", "not a number", "reduction"],
)
def test_wrong_box_weights(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build(BoxLossWeights, options, "box_loss.")


# --- all four

Loss = Callable[..., Tensor]


def inputs_of(task: str, dtype: torch.dtype = torch.float64, batch: int = 3) -> tuple[Loss, Tensor, list[Tensor]]:
    """A loss, a random prediction and the rest of its arguments, small."""
    torch.manual_seed(1)
    if task == "steering":
        return steering_loss, torch.randn(batch, 10, dtype=dtype), [torch.randn(batch, 10, dtype=dtype)]
    if task == "segmentation":
        classes = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (batch, 3, 3))]
        return segmentation_loss, torch.randn(batch, 3, 3, 3, dtype=dtype), [classes]
    if task == "depth":
        pred, target = torch.rand(2, batch, 4, 4, dtype=dtype) + 0.01
        return depth_loss, pred, [target, torch.rand(batch, 4, 4) < 0.5]
    pred, target = random_tables(batch, 2, 3, 2, dtype)
    return boxes_loss, pred, [target]


TASKS = ("steering", "segmentation", "boxes", "depth")


@pytest.mark.parametrize("task", TASKS)
def test_gradients(task: str) -> None:
    loss, pred, rest = inputs_of(task)
    assert torch.autograd.gradcheck(lambda values: loss(values, *rest), pred.requires_grad_())


@pytest.mark.parametrize("task", TASKS)
def test_a_sample_costs_the_same_in_any_batch(task: str) -> None:
    loss, pred, rest = inputs_of(task)
    together = loss(pred, *rest)
    alone = [loss(pred[i : i + 1], *(values[i : i + 1] for values in rest)) for i in range(3)]
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
    ids=["bfloat16", "float32", "float64"],
)
def test_precision(task: str, dtype: torch.dtype, expected: torch.dtype) -> None:
    loss, pred, rest = inputs_of(task, dtype)
    result = loss(pred, *rest)
    assert result.dtype == expected
    torch.testing.assert_close(result, loss(pred.double(), *rest).to(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: steering_loss(torch.zeros(2, 10), torch.zeros(2, 1)), "steering target must be (2, 10), got (2, 1)"),
        (
            lambda: segmentation_loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)),
            "segmentation target must be (1, 4, 4), got (1, 1, 4, 4)",
        ),
        (
            lambda: depth_loss(torch.zeros(2, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4).bool()),
            "depth target must be (2, 4, 4), got (2, 1, 4, 4)",
        ),
        (
            lambda: depth_loss(torch.zeros(2, 4, 4), torch.zeros(2, 4, 4), torch.zeros(4, 4).bool()),
            "depth mask must be (2, 4, 4), got (4, 4)",
        ),
        (
            lambda: boxes_loss(torch.zeros(1, 8, 8, 10, 19), torch.zeros(8, 8, 10, 19)),
            "boxes target must be (1, 8, 8, 10, 19), got (8, 8, 10, 19)",
        ),
    ],
    ids=["steering", "segmentation", "depth", "depth mask", "boxes"],
)
def test_shapes_that_would_be_broadcast_are_refused(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}: the prediction's shape decides$"):
        call()
