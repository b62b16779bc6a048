"""In bfloat16 on a CPU every gradient of a convolution is written, also that of weights which no pixel reaches."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mnistlab.training.convolutions import Side, _makes_small
from mnistlab.training.precision import autocast

CPU = torch.device("cpu")
PLAIN = [torch.conv1d, torch.conv2d, torch.conv3d]
TRANSPOSED = [torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d]


def litter() -> None:
    """Free memory of many sizes that is full of NaN: what is then left unwritten is NaN."""
    kept = [torch.full((2**n,), float("nan"), dtype=t) for n in range(3, 16) for t in (torch.float32, torch.bfloat16)]
    del kept


def drawn(*shape: int) -> Tensor:
    """Return numbers that bfloat16 has."""
    return torch.randn(*shape).bfloat16().float()


def all_that_comes(convolve, tensors: list[Tensor], bf16: bool, **settings) -> list[Tensor]:
    """Return the result and the gradients of maps, weights and bias."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    litter()
    with autocast(CPU, bf16=bf16):
        found = convolve(*leaves, **settings)
    assert found.dtype == (torch.bfloat16 if bf16 else tensors[0].dtype)
    litter()
    # A loss that is not the same for all: else the bias's gradient is a sum of what nearly cancels.
    (found * torch.linspace(0.5, 1, found.numel()).reshape(found.shape)).to(torch.float64).sum().backward()
    return [found.detach(), *(leaf.grad for leaf in leaves)]


def agrees(convolve, maps: Tensor, weight: Tensor, outputs: int, **settings) -> None:
    tensors = [maps, weight, drawn(outputs)]
    want = all_that_comes(convolve, [tensor.double() for tensor in tensors], False, **settings)
    for _ in range(3):
        for got, right in zip(all_that_comes(convolve, tensors, True, **settings), want, strict=True):
            assert (got.double() - right).abs().max() <= 0.02 * right.abs().max()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("convolve", [*PLAIN, *TRANSPOSED])
def test_nothing_that_comes_was_left_unwritten(convolve, kernel, stride, size):
    torch.manual_seed(0)
    ways = int(convolve.__name__[-2])
    if convolve in TRANSPOSED and (size - 1) * stride + kernel <= 2 * (kernel // 2):
        pytest.skip("all would be cropped")
    agrees(
        convolve,
        drawn(4, 16, *[size] * ways),
        drawn(16, 16, *[kernel] * ways),
        16,
        stride=stride,
        padding=kernel // 2,
    )


@pytest.mark.parametrize(
    ("convolve", "maps", "weight", "outputs", "settings"),
    [
        # one pixel, no padding
        (torch.conv_transpose1d, (4, 16, 1), (16, 1, 2), 1, {"stride": 3}),
        (torch.conv_transpose2d, (4, 16, 1, 1), (16, 1, 1, 1), 1, {"stride": 2}),
        (torch.conv_transpose3d, (4, 16, 1, 1, 1), (16, 4, 1, 1, 1), 4, {"stride": 2}),
        # of these, torch leaves gradients unwritten in float32, too, or dies of them
        (torch.conv3d, (4, 24, 6, 6, 6), (2, 24, 7, 7, 7), 2, {"stride": 2, "padding": 3}),
        (torch.conv3d, (2, 1, 5, 5, 5), (8, 1, 7, 7, 7), 8, {"stride": 2, "padding": 3}),
        (torch.conv3d, (16, 3, 4, 4, 4), (16, 3, 5, 5, 5), 16, {"stride": 2, "padding": (3, 2, 2)}),
        (torch.conv_transpose3d, (4, 4, 4, 4, 4), (4, 3, 7, 7, 7), 3, {"stride": 2, "padding": 3}),
        # every way to say a setting
        (torch.conv2d, (2, 4, 1, 3), (4, 4, 3, 5), 4, {"stride": [2, 1], "padding": (1, 2)}),
        (torch.conv2d, (2, 4, 1, 3), (4, 4, 3, 5), 4, {"padding": "same"}),
        (torch.conv2d, (2, 4, 3, 3), (4, 4, 4, 2), 4, {"padding": "same"}),
        (torch.conv2d, (2, 4, 3, 3), (4, 4, 3, 3), 4, {"padding": "valid", "stride": 2}),
        (torch.conv2d, (4, 3, 3), (4, 4, 3, 3), 4, {"padding": torch.Size([1, 1]), "stride": (2,)}),
        (torch.conv2d, (2, 4, 2, 2), (4, 4, 3, 3), 4, {"padding": np.int64(1), "stride": np.int64(2)}),
        (torch.conv2d, (2, 4, 3, 3), (4, 2, 3, 3), 4, {"padding": (2, 1), "dilation": (2, 1), "groups": 2}),
        (
            torch.conv_transpose2d,
            (2, 4, 1, 2),
            (4, 3, 3, 3),
            6,
            {"stride": (2, 3), "padding": (1, 2), "output_padding": (1, 2), "groups": 2, "dilation": (1, 2)},
        ),
        (torch.conv_transpose2d, (4, 2, 2), (4, 3, 3, 3), 3, {"stride": 2, "padding": (1,), "output_padding": 1}),
    ],
)
def test_so_it_is_of_every_kind_of_call(convolve, maps, weight, outputs, settings):
    torch.manual_seed(0)
    agrees(convolve, drawn(*maps), drawn(*weight), outputs, **settings)


# --- which maps are small -----------------------------------------------------------------------------------------


def unreached(windows: int, pixels: int, side: Side) -> bool:
    """Say by trying all of them whether a weight meets only padding wherever the kernel stands."""
    places = [at * side.stride - side.padding[0] for at in range(windows)]
    taps = [tap * side.dilation for tap in range(side.kernel)]
    return any(not any(0 <= place + tap < pixels for place in places) for tap in taps)


@settings(max_examples=500)
@given(st.integers(1, 12), st.integers(1, 7), st.integers(1, 4), st.integers(0, 6), st.integers(1, 3), st.booleans())
def test_every_map_is_small_that_leaves_a_weight_unreached(pixels, kernel, stride, padding, dilation, transposed):
    side = Side(pixels, kernel, stride, dilation, (padding, padding))
    assume(padding <= side.reach)
    if transposed:
        assume(side.made > 0)
        assert _makes_small((side,)) or not unreached(pixels, side.made, side)
    else:
        inside = pixels + 2 * padding - side.reach
        assume(inside > 0)
        assert side.is_small(pixels) or not unreached((inside - 1) // stride + 1, pixels, side)


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
    ("kind", "size", "settings", "low"),
    [
        (nn.Conv2d, 28, {"padding": 1}, True),
        (nn.Conv2d, 4, {"padding": 1, "stride": 2}, True),
        (nn.Conv2d, 3, {"padding": 1, "stride": 2}, False),
        (nn.Conv2d, 2, {"padding": "same"}, False),
        (nn.Conv2d, 5, {"padding": "same"}, True),
        (nn.Conv2d, 3, {"padding": "valid"}, True),
        (nn.Conv2d, 3, {}, True),
        (nn.Conv2d, 3, {"stride": 2}, False),
        (nn.Conv2d, 4, {"padding": (2, 0), "dilation": (2, 1)}, False),
        (nn.Conv2d, 5, {"padding": 1, "padding_mode": "reflect"}, True),
        (nn.ConvTranspose2d, 7, {"padding": 1, "stride": 2}, True),
        (nn.ConvTranspose2d, 3, {"padding": 1, "stride": 2}, True),
        (nn.ConvTranspose2d, 2, {"padding": 1, "stride": 2}, False),
        (nn.ConvTranspose2d, 4, {"padding": 1, "groups": 2}, True),
        (nn.ConvTranspose2d, 3, {"padding": 1, "dilation": 2}, True),
    ],
)
def test_only_small_maps_are_computed_in_float32(kind, size, settings, low):
    layer = kind(4, 4, 3, **settings)
    maps = torch.randn(2, 4, size, size, requires_grad=True)
    with autocast(CPU, bf16=True):
        found = layer(maps)
    assert found.dtype == torch.bfloat16
    assert in_bfloat16(found) == low


# --- whoever convolves --------------------------------------------------------------------------------------------


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, padding=1), nn.Conv2d(16, 16, 3, stride=2, padding=1))


@pytest.mark.parametrize(
    "run",
    [
        lambda module, maps: module(maps),
        lambda module, maps: checkpoint(module, maps, use_reentrant=False),
        lambda module, maps: checkpoint(module, maps.requires_grad_(), use_reentrant=True),
        lambda module, maps: torch.jit.script(module)(maps),
        lambda module, maps: torch.ops.aten.conv2d(module[0](maps), module[1].weight, None, [2, 2], [1, 1]),
    ],
    ids=["module", "checkpoint", "reentrant", "script", "aten"],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_gradients_are_whole_whoever_convolves(run):
    for _ in range(10):
        module, maps = net(), torch.randn(16, 16, 2, 2)
        litter()
        with autocast(CPU, bf16=True):
            found = run(module, maps)
        litter()
        found.float().square().mean().backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
        assert module[1].weight.grad[:, :, 0].abs().max() == 0  # its upper row meets padding only


def test_gradients_of_a_compiled_module_are_whole():
    module, maps = net(), torch.randn(16, 16, 2, 2)
    compiled = torch.compile(module, backend="aot_eager")
    for _ in range(5):
        module.zero_grad()
        litter()
        with autocast(CPU, bf16=True):
            found = compiled(maps)
        litter()
        found.float().square().mean().backward()
        assert module[1].weight.grad[:, :, 0].abs().max() == 0


# --- all else is as torch has it ----------------------------------------------------------------------------------


def test_what_a_model_computes_in_float32_itself_stays_so():
    layer, maps = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 1, 1)
    with autocast(CPU, bf16=True), torch.autocast("cpu", enabled=False):
        assert layer(maps).dtype == torch.float32
        assert layer.double()(maps.double()).dtype == torch.float64
        assert layer.bfloat16()(maps.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.int64])
@pytest.mark.parametrize("size", [1, 8])
def test_numbers_that_autocast_leaves_alone_are_left_alone(dtype, size):
    maps, weight = (torch.ones(1, 2, side, side, dtype=dtype) for side in (size, 3))
    with autocast(CPU, bf16=True):
        found = torch.conv2d(maps, weight, padding=1)
    assert found.dtype == dtype
    assert torch.equal(found, torch.conv2d(maps, weight, padding=1))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda maps, weight: torch.conv2d(maps, weight[:, :3]),
        lambda maps, weight: torch.conv2d(maps, weight[0, 0]),
        lambda maps, weight: torch.conv2d(maps, weight, padding=(1, 1, 1)),
        lambda maps, weight: torch.conv2d(maps, weight, stride=()),
        torch.conv2d,
        lambda maps, weight: torch.conv2d(maps, weight.double(), padding=1),
        lambda maps, weight: torch.conv2d(maps, weight, padding="all"),
        lambda maps, weight: torch.conv_transpose2d(maps, weight, padding=2),
        lambda maps, weight: torch.conv_transpose2d(maps, weight, stride=(), padding=()),
    ],
)
def test_a_wrong_call_is_refused_in_torchs_own_words(wrong):
    maps, weight = torch.randn(2, 4, 1, 1), torch.randn(4, 4, 3, 3)
    with pytest.raises(RuntimeError) as plain:
        wrong(maps.bfloat16(), weight.bfloat16())
    with pytest.raises(RuntimeError) as ours, autocast(CPU, bf16=True):
        wrong(maps, weight)
    assert str(ours.value).splitlines()[0] == str(plain.value).splitlines()[0]


def test_large_maps_give_what_torch_gives():
    layer, maps = nn.Conv2d(4, 4, 3, padding=1), torch.randn(2, 4, 8, 8)
    with autocast(CPU, bf16=True):
        found = layer(maps)
    assert torch.equal(found, layer.bfloat16()(maps.bfloat16()))
