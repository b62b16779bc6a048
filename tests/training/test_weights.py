from __future__ import annotations

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mnistlab.training.weights import pack, unpack, unpack_entry


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def through(state: object) -> object:
    return unpack(pack(state))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8, torch.bool, torch.int64, torch.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2)])
def test_tensors_of_every_kind_come_back_bit_for_bit(dtype, shape):
    tensor = (torch.randn(shape) * 3).abs().to(dtype)
    assert same(through(tensor), tensor)


def test_an_optimizer_state_keyed_by_integers_comes_back():
    state = {
        "state": {0: {"step": torch.tensor(3.0), "buffer": torch.ones(2)}, 1: {}},
        "groups": [{"lr": 0.1, "params": [0, 1]}],
    }
    assert same(through(state), state)


def test_a_real_optimizer_goes_on_from_what_was_packed():
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    again = torch.optim.AdamW([weight], lr=0.5)
    again.load_state_dict(through(optimizer.state_dict()))
    assert torch.equal(again.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])


def test_views_shared_storage_and_memory_formats_keep_their_values():
    base = torch.arange(24.0)
    images = base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    state = {"all": base, "part": base[3:7], "every_other": base[::2], "images": images, "turned": base.reshape(4, 6).T}
    assert same(through(state), state)


def test_what_is_packed_is_a_copy_without_gradients():
    weight = torch.nn.Parameter(torch.ones(2))
    data = pack({"w": weight})
    weight.data.zero_()
    back = unpack(data)["w"]
    assert back.tolist() == [1.0, 1.0]
    assert not back.requires_grad


def test_names_that_the_format_uses_itself_are_no_trouble():
    state = {"__tensor__": "0", "__dict__": [["a", 1]], "t": torch.ones(1)}
    assert same(through(state), state)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers()
nested = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


@given(nested)
def test_plain_values_come_back_as_they_were(state):
    assert same(through(state), state)


def test_special_numbers_come_back():
    back = through([math.inf, -math.inf, math.nan])
    assert back[:2] == [math.inf, -math.inf]
    assert math.isnan(back[2])


def test_objects_are_refused_rather_than_pickled():
    with pytest.raises(TypeError):
        pack({"object": object()})


class Trap:
    """Unpickled, it would make the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_never_unpickled(tmp_path):
    sprung = tmp_path / "sprung"
    with pytest.raises(Exception):  # noqa: B017 - which one is the format's business
        unpack(pickle.dumps(Trap(sprung)))
    assert not sprung.exists()


def test_the_order_of_a_tensor_in_memory_comes_back():
    plain = torch.arange(72.0).reshape(2, 4, 3, 3)
    last = plain.clone().to(memory_format=torch.channels_last)
    back = unpack(pack({"plain": plain, "last": last}))
    assert torch.equal(back["plain"], plain)
    assert torch.equal(back["last"], last)
    assert (back["plain"].stride(), back["last"].stride()) == (plain.stride(), last.stride())


def test_an_entry_without_tensors_is_read_alone():
    packed = pack({"plan": {"a": [1, {"b": 0.3}]}, 3: "x", "module": {"w": torch.ones(2)}})
    assert unpack_entry(packed, "plan") == {"a": [1, {"b": 0.3}]}
    assert unpack_entry(packed[: packed.index(b"\x00\x00\x80?")], "plan") == {"a": [1, {"b": 0.3}]}  # no tensor is read
    for key in ("module", "none"):
        with pytest.raises(KeyError):
            unpack_entry(packed, key)
