"""state_dict and load_state_dict: keys, copies, everything that is wrong in one error, hooks, other frameworks' arrays."""

from collections import OrderedDict

import numpy as np
import pytest

import disttorch

nn = disttorch.nn


def model():
    m = nn.Sequential(OrderedDict(body=nn.Linear(2, 3), norm=nn.BatchNorm1d(3)))
    m.register_buffer("scratch", disttorch.zeros(1), persistent=False)
    return m


KEYS = [
    "body.weight", "body.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked",
]  # fmt: skip


def test_the_tensors_are_the_modules_memory_without_its_graph():
    m = model()
    state = m.state_dict()
    assert list(state) == KEYS
    assert state["body.weight"].data_ptr() == m.body.weight.data_ptr() and not state["body.weight"].requires_grad
    assert m.state_dict(keep_vars=True)["body.weight"] is m.body.weight
    assert state._metadata == {"": {"version": 1}, "body": {"version": 1}, "norm": {"version": 2}}


def test_prefix_and_destination():
    destination = OrderedDict(there=1)
    assert model().state_dict(destination=destination, prefix="a.") is destination
    assert list(destination) == ["there", *(f"a.{k}" for k in KEYS)]


def test_loading_copies_into_the_same_memory():
    source, target = model(), model()
    address = target.body.weight.data_ptr()
    result = target.load_state_dict(source.state_dict())
    assert repr(result) == "<All keys matched successfully>" and result == ([], [])
    assert target.body.weight.data_ptr() == address != source.body.weight.data_ptr()
    for (_, a), (_, b) in zip(target.state_dict().items(), source.state_dict().items()):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_assigning_takes_the_tensors_themselves():
    target = model()
    target.body.bias.requires_grad_(False)
    state = {k: v.to(disttorch.float64) if v.is_floating_point() else v for k, v in model().state_dict().items()}
    target.load_state_dict(state, assign=True)
    assert target.body.weight.data_ptr() == state["body.weight"].data_ptr()
    assert target.body.weight.dtype is disttorch.float64 and isinstance(target.body.weight, nn.Parameter)
    assert target.body.weight.requires_grad and not target.body.bias.requires_grad
    assert target.norm.running_mean is state["norm.running_mean"]


def test_one_error_names_all_that_is_wrong():
    state = model().state_dict()
    del state["body.bias"]
    del state["norm.running_var"]
    state["norm.weight"] = disttorch.ones(4)
    state["body.weight"] = disttorch.ones(3)
    state["norm.extra"] = disttorch.ones(1)
    state["head.weight"] = disttorch.ones(1)
    state["norm.bias"] = "text"
    with pytest.raises(RuntimeError) as caught:
        model().load_state_dict(state)
    text = str(caught.value)
    assert text.startswith("Error(s) in loading state_dict for Sequential:\n\tMissing key(s) in state_dict: ")
    for part in (
        'Missing key(s) in state_dict: "body.bias", "norm.running_var". ',
        'Unexpected key(s) in state_dict: "head.weight", "norm.extra". ',
        "size mismatch for body.weight: copying a param with shape [3] from checkpoint, the shape in current model is [3, 2].",
        "size mismatch for norm.weight: copying a param with shape [4] from checkpoint, the shape in current model is [3].",
        'While copying "norm.bias": expected a Tensor or an array from the checkpoint but received str',
    ):
        assert part in text


def test_what_fits_is_loaded_where_it_is_not_strict():
    source, target = model(), model()
    state = source.state_dict()
    del state["body.bias"]
    state["more"] = disttorch.ones(1)
    result = target.load_state_dict(state, strict=False)
    assert result.missing_keys == ["body.bias"] and result.unexpected_keys == ["more"]
    assert repr(result) == "_IncompatibleKeys(missing_keys=['body.bias'], unexpected_keys=['more'])"
    np.testing.assert_array_equal(target.body.weight.numpy(force=True), source.body.weight.numpy(force=True))


def test_only_mappings_are_loaded():
    with pytest.raises(TypeError, match="dict-like, got list"):
        model().load_state_dict([])


def test_a_number_may_have_been_saved_as_a_vector():
    m = nn.Module()
    m.scale = nn.Parameter(disttorch.tensor(1.0))
    m.load_state_dict({"scale": disttorch.tensor([3.0])})
    assert m.scale.shape == () and m.scale.item() == 3


def test_arrays_and_other_frameworks_tensors_load():
    m = model()
    m.load_state_dict({k: np.full(v.shape, 2, v.numpy().dtype) for k, v in m.state_dict().items()})
    assert m.body.weight.tolist() == [[2.0, 2.0]] * 3
    torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
    other = torch.nn.Sequential(OrderedDict(body=torch.nn.Linear(2, 3), norm=torch.nn.BatchNorm1d(3)))
    m.load_state_dict(other.state_dict())
    np.testing.assert_array_equal(m.body.weight.numpy(force=True), other.body.weight.detach().numpy())


def test_extra_state():
    class Counting(nn.Module):
        count = 0

        def get_extra_state(self):
            return {"count": self.count}

        def set_extra_state(self, state):
            self.count = state["count"]

    a, b = nn.Sequential(Counting()), nn.Sequential(Counting())
    a[0].count = 5
    state = a.state_dict()
    assert list(state) == ["0._extra_state"]
    b.load_state_dict(state)
    assert b[0].count == 5
    with pytest.raises(RuntimeError, match=r'Missing key.*"0._extra_state"'):
        b.load_state_dict({})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"_extra_state"'):
        nn.ReLU().load_state_dict({"_extra_state": 1})


def test_hooks_around_saving_and_loading():
    m = nn.Sequential(nn.Linear(1, 1))
    log = []
    handles = [
        m[0].register_state_dict_pre_hook(lambda module, prefix, keep_vars: log.append(("saving", prefix, keep_vars))),
        m[0].register_state_dict_post_hook(
            lambda module, state, prefix, metadata: state.update({prefix + "note": disttorch.tensor(metadata["version"])})
        ),
    ]
    state = m.state_dict()
    assert log == [("saving", "0.", False)] and list(state) == ["0.weight", "0.bias", "0.note"]

    def rename(module, state, prefix, metadata, strict, missing, unexpected, errors):
        state[prefix + "weight"] = state.pop(prefix + "kernel")
        del state[prefix + "note"]

    def forgive(module, incompatible):
        incompatible.missing_keys.clear()

    handles.append(m[0].register_load_state_dict_pre_hook(rename))
    handles.append(m[0].register_load_state_dict_post_hook(forgive))
    old = {"0.kernel": disttorch.full((1, 1), 7.0), "0.note": disttorch.tensor(0)}
    assert m.load_state_dict(old).missing_keys == [] and m[0].weight.item() == 7
    assert list(old) == ["0.kernel", "0.note"]  # the caller's dictionary is left alone
    for handle in handles:
        handle.remove()
    assert list(m.state_dict()) == ["0.weight", "0.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"0.weight", "0.bias"'):
        m.load_state_dict(old)
