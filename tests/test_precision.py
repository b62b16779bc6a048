"""In bfloat16 on a CPU every gradient is written, also that of weights which no pixel reaches."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mnistlab.precision import WholeGradients, _is_over_a_small_map, autocast

CPU = torch.device("cpu")
PLAIN = [torch.conv1d, torch.conv2d, torch.conv3d]
TRANSPOSED = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d]


def litter() -> None:
    """Free memory of many sizes that is full of NaN: what is then left unwritten is NaN."""
    kept = [torch.full((2**n,), float("nan"), dtype=t) for n in range(3, 16) for t in (torch.float32, torch.bfloat16)]
    del kept


def gradient(convolve, maps: Tensor, weight: Tensor, bf16: bool, **settings) -> Tensor:
    weight = weight.clone().requires_grad_()
    litter()
    with autocast(CPU, bf16=bf16):
        found = convolve(maps, weight, **settings)
    assert found.dtype == (torch.bfloat16 if bf16 else torch.float32)
    litter()
    found.float().square().mean().backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("convolve", [*PLAIN[:2], *TRANSPOSED[:2]])
def test_gradients_are_those_of_float32(convolve, kernel, stride, size):
    ways = 1 if convolve in (PLAIN[0], TRANSPOSED[0]) else 2
    torch.manual_seed(0)
    maps = torch.randn(16, 16, *[size] * ways).bfloat16().float()
    weight = torch.randn(16, 16, *[kernel] * ways).bfloat16().float()
    shape = {"stride": stride, "padding": kernel // 2}
    try:
        want = gradient(convolve, maps, weight, False, **shape)
    except RuntimeError:
        pytest.skip("a transposed convolution that crops everything")
    got = gradient(convolve, maps, weight, True, **shape)
    assert (got - want).abs().max() <= 0.02 * want.abs().max()


def unreached(windows: int, pixels: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Say by trying all of them whether a weight meets only padding wherever the kernel stands."""
    return any(
        not any(0 <= at * stride + tap * dilation - padding < pixels for at in range(windows)) for tap in range(kernel)
    )


@settings(max_examples=500)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(1, 4), st.integers(0, 6), st.integers(1, 3), st.booleans())
def test_every_convolution_that_leaves_a_weight_unreached_is_seen(
    pixels, kernel, stride, padding, dilation, transposed
):
    extent = dilation * (kernel - 1) + 1
    assume(padding < extent)
    if transposed:
        out = (pixels - 1) * stride - 2 * padding + extent
        assume(out > 0)
        truth = unreached(pixels, out, kernel, stride, padding, dilation)
    else:
        assume(pixels + 2 * padding >= extent)
        truth = unreached((pixels + 2 * padding - extent) // stride + 1, pixels, kernel, stride, padding, dilation)
    call = {"input": torch.empty(1, 1, pixels), "weight": torch.empty(1, 1, kernel)}
    found = _is_over_a_small_map(
        call | {"stride": stride, "padding": [padding], "dilation": dilation}, transposed=transposed
    )
    assert found or not truth


def in_bfloat16(found: Tensor) -> bool:
    """Return whether a convolution was computed in bfloat16, by the node that goes back through it."""
    seen, todo = set(), [found.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "Convolution" in node.name():
            return node._saved_input.dtype == torch.bfloat16
        todo += [next_node for next_node, _ in node.next_functions]
    raise AssertionError("no convolution")


@pytest.mark.parametrize(
    ("size", "settings", "low"),
    [
        (28, {"padding": 1}, True),
        (4, {"padding": 1, "stride": 2}, True),
        (3, {"padding": 1, "stride": 2}, False),
        (2, {"padding": "same"}, False),
        (5, {"padding": "same"}, True),
        (3, {"padding": "valid"}, True),
        (3, {}, True),
        (3, {"stride": 2}, False),
        (4, {"padding": (2, 0), "dilation": (2, 1)}, False),
        (5, {"padding": 1, "padding_mode": "reflect"}, True),
    ],
)
def test_only_small_maps_are_computed_in_float32(size, settings, low):
    layer = nn.Conv2d(4, 4, 3, **settings)
    maps = torch.randn(2, 4, size, size, requires_grad=True)
    with autocast(CPU, bf16=True):
        found = layer(maps)
    assert found.dtype == torch.bfloat16
    assert in_bfloat16(found) == low


@pytest.mark.parametrize(
    ("convolve", "kernel", "stride"),
    [(torch.conv_transpose1d, 2, 3), (torch.conv_transpose2d, 1, 2), (torch.conv_transpose3d, 1, 2)],
)
def test_gradients_of_a_single_pixel_without_padding(convolve, kernel, stride):
    torch.manual_seed(0)
    ways = int(convolve.__name__[-2])
    maps, weight = torch.randn(4, 16, *[1] * ways), torch.randn(16, 1, *[kernel] * ways)
    want = gradient(convolve, maps, weight, False, stride=stride)
    for _ in range(50):
        got = gradient(convolve, maps, weight, True, stride=stride)
        assert (got - want).abs().max() <= 0.02 * want.abs().max()


def test_what_a_model_computes_in_float32_itself_stays_so():
    layer, maps = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 1, 1)
    with autocast(CPU, bf16=True), torch.autocast("cpu", enabled=False):
        assert layer(maps).dtype == torch.float32
        assert layer.double()(maps.double()).dtype == torch.float64
        assert layer.bfloat16()(maps.bfloat16()).dtype == torch.bfloat16


def test_a_wrong_call_is_refused_by_torch_in_its_own_words():
    maps, weight = torch.randn(2, 4, 1, 1), torch.randn(4, 4, 3, 3)
    with WholeGradients(), torch.autocast("cpu", torch.bfloat16):
        for wrong in ({}, {"input": maps}, {"input": maps, "weight": None}, {"input": maps, "weight": weight[:, :3]}):
            with pytest.raises((TypeError, RuntimeError), match=r"conv2d|channels"):
                torch.conv2d(**wrong)
        with pytest.raises(RuntimeError, match="padding"):
            torch.conv2d(maps, weight, padding=(1, 1, 1))
        assert torch.conv2d(maps[0], weight, None, (1,), (1,)).shape == (4, 1, 1)


def test_nothing_is_watched_where_all_is_float32():
    with autocast(CPU, bf16=False):
        assert not torch.overrides._get_current_function_mode_stack()
    with autocast(CPU, bf16=True):
        assert len(torch.overrides._get_current_function_mode_stack()) == 1
