"""Import paths of PyTorch's files, hooks of all modules, and what Module offers beside the usual."""

import importlib

import numpy as np
import pytest

import disttorch

nn = disttorch.nn


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("activation", "ReLU PReLU Softmax"),
        ("batchnorm", "BatchNorm2d _BatchNorm _NormBase"),
        ("container", "Sequential ModuleList ParameterDict"),
        ("conv", "Conv2d ConvTranspose1d _ConvNd"),
        ("distance", "CosineSimilarity"),
        ("dropout", "Dropout _DropoutNd"),
        ("flatten", "Flatten Unflatten"),
        ("instancenorm", "InstanceNorm2d _InstanceNorm"),
        ("linear", "Linear Bilinear Identity"),
        ("loss", "_Loss _WeightedLoss CTCLoss"),
        ("module", "Module _IncompatibleKeys register_module_forward_hook"),
        ("normalization", "LayerNorm GroupNorm"),
        ("padding", "ZeroPad2d"),
        ("pooling", "MaxPool2d _MaxPoolNd"),
        ("sparse", "Embedding EmbeddingBag"),
        ("utils", "_pair _ntuple _reverse_repeat_tuple"),
    ],
)
def test_names_are_found_where_pytorch_has_them(path, names):
    module = importlib.import_module(f"disttorch.nn.modules.{path}")
    for name in names.split():
        found = getattr(module, name)
        if hasattr(nn, name):
            assert found is getattr(nn, name)


def test_names_that_are_nowhere_are_said_to_be_absent():
    import disttorch.nn.modules.conv as conv

    with pytest.raises(AttributeError, match="'Conv9d'"):
        conv.Conv9d  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("disttorch.nn.modules.nothing")


def test_arguments_as_tuples():
    from disttorch.nn.modules.utils import (
        _ntuple,
        _pair,
        _reverse_repeat_tuple,
        consume_prefix_in_state_dict_if_present,
    )

    assert _pair(3) == (3, 3) and _pair([1, 2]) == (1, 2) and _ntuple(4)("ab") == ("a", "b")
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)
    state = {"module.a": 1, "b": 2}
    consume_prefix_in_state_dict_if_present(state, "module.")
    assert state == {"a": 1, "b": 2}


def test_losses_have_bases_to_derive_from():
    from disttorch.nn.modules.loss import _Loss, _WeightedLoss

    class Own(_Loss):
        def __init__(self):
            super().__init__(reduction="sum")

    assert Own().reduction == "sum"
    assert isinstance(nn.CrossEntropyLoss(), _WeightedLoss) and isinstance(nn.CTCLoss(), _Loss)
    with pytest.warns(UserWarning, match="reduction='none'"):
        assert _Loss(None, False).reduction == "none"


def test_losses_take_their_inputs_by_name():
    x, t = disttorch.randn(3, 4), disttorch.tensor([0, 1, 2])
    assert float(nn.CrossEntropyLoss()(input=x, target=t)) == float(nn.CrossEntropyLoss()(x, t))
    with pytest.raises(TypeError, match="3 inputs, but 2"):
        nn.TripletMarginLoss()(x, positive=x)


def test_hooks_of_all_modules():
    from disttorch.nn.modules import module

    log = []
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    own = model[0].register_forward_hook(lambda m, args, out: log.append("own"))
    handles = [
        module.register_module_forward_pre_hook(lambda m, args: log.append(f"before {type(m).__name__}")),
        module.register_module_forward_hook(lambda m, args, out: log.append(f"after {type(m).__name__}")),
        module.register_module_full_backward_hook(lambda m, gi, go: log.append(f"backward {type(m).__name__}")),
    ]
    model(disttorch.ones(1, 2, requires_grad=True)).sum().backward()
    assert log == [
        "before Sequential", "before Linear", "after Linear", "own", "before ReLU", "after ReLU", "after Sequential",
        "backward ReLU", "backward Linear", "backward Sequential",
    ]  # fmt: skip
    for handle in handles:
        handle.remove()
    own.remove()
    log.clear()
    model(disttorch.ones(1, 2)).sum()
    assert not log and nn.Module._hooks is None


def test_a_hook_of_ones_own_is_not_registered_for_all():
    from disttorch.nn.modules import module

    with module.register_module_forward_hook(lambda m, args, out: None):
        one, two, log = nn.ReLU(), nn.ReLU(), []
        one.register_forward_hook(lambda m, args, out: log.append(m))
        two(disttorch.ones(1))
    one(disttorch.ones(1))
    assert log == [one]


class TestModule:
    def test_parts_can_be_exchanged_by_their_dotted_names(self):
        model = nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.ReLU())
        new = nn.Linear(2, 3)
        model.set_submodule("0.0", new)
        assert model[0][0] is new
        model.set_submodule("0.extra", nn.ReLU())
        with pytest.raises(AttributeError, match="`more`"):
            model.set_submodule("0.more", nn.ReLU(), strict=True)
        with pytest.raises(AttributeError, match=r"`weight` is not an nn\.Module"):
            model.set_submodule("0.0.weight", nn.ReLU())
        with pytest.raises(ValueError, match="target name"):
            model.set_submodule("", nn.ReLU())

    def test_to_empty_keeps_the_parameters_themselves(self):
        model = nn.BatchNorm1d(3)
        weight, memory = model.weight, model.weight.data_ptr()
        assert model.to_empty(device="cpu") is model
        assert model.weight is weight and weight.data_ptr() != memory and weight.requires_grad
        assert model.running_mean.shape == (3,)

    def test_arguments_that_nobody_knows(self):
        with pytest.raises(TypeError, match="'colour'"):
            nn.Module(colour=1)

    def test_arguments_are_passed_on_where_that_is_asked_for(self):
        class Mixin:
            def __init__(self, colour):
                self.colour = colour

        class Both(nn.Module, Mixin):
            call_super_init = True

            def __init__(self, colour):
                super().__init__(colour)

        assert Both("red").colour == "red"

    def test_hooks_by_the_names_that_libraries_use(self):
        layer = nn.Linear(2, 2)
        layer._register_state_dict_hook(lambda module, state, prefix, metadata: {"all": dict(state)})
        assert set(layer.state_dict()["all"]) == {"weight", "bias"}
        loading = nn.Linear(2, 2)

        def rename(state_dict, prefix, *rest):
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")

        loading._register_load_state_dict_pre_hook(rename)
        loading.load_state_dict({"w": disttorch.ones(2, 2), "bias": disttorch.zeros(2)})
        assert loading.weight.tolist() == [[1, 1], [1, 1]]
        loading.register_backward_hook(lambda module, grad_input, grad_output: None)

    def test_a_hook_may_rename_what_parts_will_load(self):
        model = nn.Sequential(nn.Linear(1, 1))

        def rename(module, state_dict, prefix, *rest):
            state_dict["0.weight"] = state_dict.pop("first")

        model.register_load_state_dict_pre_hook(rename)
        model.load_state_dict({"first": disttorch.full((1, 1), 5.0), "0.bias": disttorch.zeros(1)})
        assert float(model[0].weight) == 5

    def test_skipping_initial_values(self):
        layer = nn.utils.skip_init(nn.Linear, 3, 2)
        assert layer.weight.shape == (2, 3) and layer.weight.requires_grad
        with pytest.raises(RuntimeError, match="device"):
            nn.utils.skip_init(nn.ReLU)
        assert np.isfinite(nn.Linear(3, 2).weight.detach().numpy()).all()

    @pytest.mark.parametrize("transposed", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    def test_batch_normalization_is_folded_into_the_layer_before(self, transposed, bias):
        conv = (nn.ConvTranspose2d if transposed else nn.Conv2d)(3, 4, 2, bias=bias).eval()
        norm = nn.BatchNorm2d(4).eval()
        for tensor in (norm.running_mean, norm.bias.data):
            tensor.uniform_(-1, 1)
        for tensor in (norm.running_var, norm.weight.data):
            tensor.uniform_(0.5, 2)
        x = disttorch.randn(2, 3, 5, 5)
        fused = nn.utils.fuse_conv_bn_eval(conv, norm, transpose=transposed)
        np.testing.assert_allclose(fused(x).detach().numpy(), norm(conv(x)).detach().numpy(), atol=2e-6)
        with pytest.raises(ValueError, match="eval"):
            nn.utils.fuse_conv_bn_eval(conv, norm.train())

    def test_linear_layers_too(self):
        linear, norm = nn.Linear(3, 4).eval(), nn.BatchNorm1d(4, affine=False).eval()
        norm.running_mean.uniform_(-1, 1)
        x = disttorch.randn(5, 3)
        fused = nn.utils.fuse_linear_bn_eval(linear, norm)
        np.testing.assert_allclose(fused(x).detach().numpy(), norm(linear(x)).detach().numpy(), atol=2e-6)
