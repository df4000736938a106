"""What a Module knows of itself: attributes, names, conversions, modes, copies, and how containers hold modules."""

import copy
import pickle

import numpy as np
import pytest

import disttorch

nn = disttorch.nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(3, 1))
        self.scale = nn.Parameter(disttorch.ones(1))
        self.register_buffer("seen", disttorch.tensor(0))
        self.register_buffer("scratch", disttorch.zeros(2), persistent=False)

    def forward(self, x):
        return self.rest(self.first(x)) * self.scale


class TestAttributes:
    def test_what_is_assigned_is_registered(self):
        m = Small()
        assert [n for n, _ in m.named_parameters()] == [
            "scale", "first.weight", "first.bias", "rest.1.weight", "rest.1.bias",
        ]  # fmt: skip
        assert [n for n, _ in m.named_buffers()] == ["seen", "scratch"]
        assert [n for n, _ in m.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
        assert [n for n, _ in m.named_children()] == ["first", "rest"]
        assert [n for n, _ in m.named_parameters(prefix="model", recurse=False)] == ["model.scale"]
        assert {"first", "rest", "scale", "seen", "training", "forward"} <= set(dir(m))

    def test_the_last_assignment_decides_what_a_name_is(self):
        m = nn.Module()
        m.x = 3
        m.x = nn.Parameter(disttorch.ones(1))
        assert "x" in m._parameters and "x" not in m.__dict__
        m.x = nn.Linear(1, 1)
        assert "x" in m._modules and "x" not in m._parameters
        m.x = nn.Buffer(disttorch.ones(1), persistent=False)
        assert "x" in m._buffers and "x" not in m._modules and not m.state_dict()
        m.x = nn.Buffer(disttorch.ones(1))
        assert list(m.state_dict()) == ["x"]
        m.x = disttorch.zeros(2)
        assert m._buffers["x"].shape == (2,)
        m.x = None
        assert "x" in m._buffers and m.x is None
        del m.x
        with pytest.raises(AttributeError, match="'Module' object has no attribute 'x'"):
            _ = m.x

    def test_none_keeps_the_place_of_a_parameter_and_of_a_module(self):
        m = nn.Linear(2, 2)
        m.bias = None
        assert m.bias is None and list(m.state_dict()) == ["weight"]
        s = Small()
        s.first = None
        assert s.first is None and "first" in s._modules

    @pytest.mark.parametrize(
        ("value", "error", "message"),
        [
            (lambda m: setattr(m, "scale", disttorch.ones(1)), TypeError, "cannot assign 'Tensor' as parameter 'scale'"),
            (lambda m: setattr(m, "first", 3), TypeError, "cannot assign 'int' as child module 'first'"),
            (lambda m: setattr(m, "seen", 3), TypeError, "cannot assign 'int' as buffer 'seen'"),
            (lambda m: m.register_buffer("forward", None), KeyError, "attribute 'forward' already exists"),
            (lambda m: m.register_buffer("a.b", None), KeyError, "contain .*a.b"),
            (lambda m: m.register_parameter("", None), KeyError, "be empty string"),
            (lambda m: m.register_buffer(3, None), TypeError, "should be a string. Got int"),
            (lambda m: m.register_buffer("b", 3), TypeError, "cannot assign 'int' object to buffer 'b'"),
            (lambda m: m.register_parameter("p", disttorch.ones(1)), TypeError, "to parameter 'p'"),
            (lambda m: m.add_module("p", 3), TypeError, "int is not a Module subclass"),
            (lambda m: m.get_submodule("rest.7"), AttributeError, "no attribute `7`"),
            (lambda m: m.get_submodule("scale"), AttributeError, "not an nn.Module"),
            (lambda m: m.get_parameter("rest.0.weight"), AttributeError, "no attribute `weight`"),
            (lambda m: m.get_parameter("seen"), AttributeError, "not an nn.Parameter"),
            (lambda m: m.get_buffer("scale"), AttributeError, "not an buffer"),
            (lambda m: m.train("yes"), ValueError, "boolean"),
            (lambda m: m.to(disttorch.int64), TypeError, "floating point"),
            (lambda m: m.to(colour="red"), TypeError, "'colour'"),
            (lambda m: nn.Parameter(3), TypeError, "not int"),
            (lambda m: nn.Parameter(disttorch.tensor([1])), RuntimeError, "floating point"),
            (lambda m: nn.Module()(1), NotImplementedError, 'missing the required "forward"'),
            (lambda m: nn.NoSuchLayer, AttributeError, "'NoSuchLayer': it is not built"),
            (lambda m: nn.functional.no_such, AttributeError, "not built"),
            (lambda m: nn.utils.no_such, AttributeError, "not built"),
        ],
    )
    def test_mistakes_are_named(self, value, error, message):
        with pytest.raises(error, match=message):
            value(Small())

    def test_a_result_is_no_parameter(self):
        p = nn.Parameter(disttorch.ones(2))
        computed = nn.Parameter(disttorch.ones(2))
        computed._node = (p * 2)._node
        with pytest.raises(ValueError, match="Cannot assign non-leaf Tensor to parameter 'w'"):
            nn.Module().register_parameter("w", computed)

    @pytest.mark.parametrize(
        ("value", "what"),
        [
            (lambda: nn.Linear(1, 1), "module"),
            (lambda: nn.Parameter(disttorch.ones(1)), "parameters"),
            (lambda: nn.Buffer(disttorch.ones(1)), "buffer"),
        ],
    )
    def test_init_must_come_first(self, value, what):
        class Forgot(nn.Module):
            def __init__(self):
                self.x = value()

        with pytest.raises(AttributeError, match=rf"cannot assign {what} before Module.__init__\(\) call"):
            Forgot()

    def test_parts_are_found_by_dotted_names(self):
        m = Small()
        assert m.get_submodule("") is m and m.get_submodule("rest.1") is m.rest[1]
        assert m.get_parameter("rest.1.bias") is m.rest[1].bias
        assert m.get_buffer("seen") is m.seen

    def test_a_shared_part_is_counted_once(self):
        m = nn.Module()
        m.a = m.b = nn.Linear(2, 2)
        m.c = nn.Linear(2, 2)
        m.c.weight = m.a.weight
        assert len(list(m.parameters())) == 3 and len(list(m.modules())) == 3 and len(list(m.children())) == 2
        assert len(list(m.named_parameters(remove_duplicate=False))) == 6
        assert list(m.state_dict()) == ["a.weight", "a.bias", "b.weight", "b.bias", "c.weight", "c.bias"]


class TestParameter:
    def test_it_uses_the_datas_memory(self):
        data = disttorch.ones(3)
        p = nn.Parameter(data)
        assert p.data_ptr() == data.data_ptr() and p.requires_grad and p.is_leaf
        assert not nn.Parameter(data, requires_grad=False).requires_grad

    def test_results_are_plain_tensors(self):
        p = nn.Parameter(disttorch.ones(3))
        for result in (p * 2, p.sum(), p[0], p.detach(), p.clone(), p.data):
            assert type(result) is disttorch.Tensor

    def test_it_prints_as_pytorchs(self):
        torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")
        for values in ([1.5, 2.0], [[1.0, -2.0], [0.25, 1e-6]]):
            assert repr(nn.Parameter(disttorch.tensor(values))) == repr(torch.nn.Parameter(torch.tensor(values)))

    @pytest.mark.parametrize("requires_grad", [True, False])
    def test_copies_keep_their_class(self, requires_grad):
        p = nn.Parameter(disttorch.tensor([1.0, 2.0]), requires_grad)
        b = nn.Buffer(disttorch.tensor([1.0, 2.0]), persistent=False)
        for again in (copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))):
            q, c = again(p), again(b)
            assert type(q) is nn.Parameter and q.requires_grad is requires_grad and q.tolist() == [1.0, 2.0]
            assert type(c) is nn.Buffer and c.persistent is False
            with disttorch.no_grad():
                q.zero_()
            assert p.tolist() == [1.0, 2.0]

    def test_deepcopy_keeps_what_is_shared_shared(self):
        m = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        m[1].weight = m[0].weight
        c = copy.deepcopy(m)
        assert c[0].weight is c[1].weight and c[0].weight is not m[0].weight


class TestConversions:
    @pytest.mark.parametrize(
        ("convert", "dtype"),
        [
            (lambda m: m.double(), "float64"),
            (lambda m: m.half(), "float16"),
            (lambda m: m.bfloat16(), "bfloat16"),
            (lambda m: m.double().float(), "float32"),
            (lambda m: m.to(disttorch.float64), "float64"),
            (lambda m: m.to("cpu", disttorch.float64), "float64"),
            (lambda m: m.to(device="cpu"), "float32"),
            (lambda m: m.to(disttorch.zeros(1, dtype=disttorch.float16)), "float16"),
            (lambda m: m.cpu(), "float32"),
        ],
    )
    def test_parameters_stay_the_objects_they_are(self, convert, dtype):
        m = Small()
        before = list(m.parameters())
        m(disttorch.ones(1, 2)).sum().backward()
        assert convert(m) is m
        assert all(p is q for p, q in zip(m.parameters(), before))
        wanted = getattr(disttorch, dtype)
        assert {p.dtype for p in m.parameters()} == {wanted} == {p.grad.dtype for p in m.parameters()}
        assert m.scratch.dtype is wanted and m.seen.dtype is disttorch.int64
        y = m(disttorch.ones(1, 2, dtype=wanted))
        y.sum().backward()  # the gradients are added to those from before
        assert y.dtype is wanted and m.scale.grad.dtype is wanted

    def test_type_converts_whole_numbers_too(self):
        m = nn.Module()
        m.register_buffer("n", disttorch.tensor([1]))
        assert m.type(disttorch.float64).n.dtype is disttorch.float64

    def test_modes_and_gradients(self):
        m = Small()
        assert m.eval() is m and not any(part.training for part in m.modules())
        assert all(part.training for part in m.train().modules())
        m(disttorch.ones(1, 2)).sum().backward()
        m.zero_grad(set_to_none=False)
        assert all(not p.grad.numpy().any() for p in m.parameters())
        m.zero_grad()
        assert all(p.grad is None for p in m.parameters())
        assert m.requires_grad_(False) is m and not any(p.requires_grad for p in m.parameters())

    def test_apply_goes_from_the_parts_to_the_whole(self):
        order = []
        m = Small()
        assert m.apply(lambda part: order.append(type(part).__name__)) is m
        assert order == ["Linear", "ReLU", "Linear", "Sequential", "Small"]


class TestContainers:
    def test_sequential_is_a_list(self):
        a, b, c, d = (nn.Linear(1, 1) for _ in range(4))
        s = nn.Sequential(a, b)
        assert s.append(c) is s and list(s) == [a, b, c] and len(s) == 3
        assert s[0] is a and s[-1] is c and list(s[1:]) == [b, c] and isinstance(s[1:], nn.Sequential)
        s.insert(1, d)
        assert list(s) == [a, d, b, c] and [n for n, _ in s.named_children()] == ["0", "1", "2", "3"]
        del s[0]
        assert list(s) == [d, b, c] and s.pop(-1) is c
        s[0] = a
        assert list(s) == [a, b] and [n for n, _ in s.named_children()] == ["0", "1"]
        del s[:1]
        assert list(s) == [b] and list(s + nn.Sequential(c)) == [b, c] and len(s * 3) == 3
        s += nn.Sequential(d)
        assert list(s.extend([a])) == [b, d, a]
        with pytest.raises(IndexError, match="7"):
            s[7]
        with pytest.raises(TypeError, match="int"):
            nn.Sequential(3)

    def test_sequential_takes_names(self):
        s = nn.Sequential({"first": nn.ReLU(), "second": nn.Flatten()})
        assert list(s.state_dict()) == [] and s.first is s[0] and [n for n, _ in s[1:].named_children()] == ["second"]

    def test_module_list(self):
        a, b, c = (nn.Linear(1, 1) for _ in range(3))
        m = nn.ModuleList([a])
        m += [b]
        assert list(m.append(c)) == [a, b, c] and list(m[1:]) == [b, c] and m[-1] is c and list(m + [a]) == [a, b, c, a]
        assert list(m.insert(0, c)) == [c, a, b, c] and m.pop(1) is a and len(m) == 3 and a not in list(m)
        with pytest.raises(TypeError, match="iterable"):
            m.extend(3)

    def test_module_dict(self):
        a, b = nn.Linear(1, 1), nn.ReLU()
        m = nn.ModuleDict({"a": a})
        m.update([("b", b)])
        m["c"] = a
        assert list(m) == ["a", "b", "c"] == list(m.keys()) and list(m.values()) == [a, b, a] and "b" in m and len(m) == 3
        assert m.pop("b") is b and dict(m.items()) == {"a": a, "c": a}
        del m["a"]
        m.clear()
        assert len(m) == 0
        with pytest.raises(ValueError, match="#0 has length 1"):
            m.update([("x",)])

    def test_parameter_list_and_dict(self):
        t = disttorch.ones(2)
        values = nn.ParameterList([t, nn.Parameter(t), 5])
        assert isinstance(values[0], nn.Parameter) and values[-1] == 5 and len(values) == 3
        assert [n for n, _ in values.named_parameters()] == ["0", "1"]
        values[2] = t
        assert len(list(values.parameters())) == 3 and len(values[1:]) == 2
        with pytest.raises(RuntimeError, match="should not be called"):
            values()
        named = nn.ParameterDict({"a": t, "b": 3})
        named["c"] = t
        assert list(named) == ["a", "b", "c"] and named.get("z") is None and named.setdefault("d", 4) == 4
        assert [n for n, _ in named.named_parameters()] == ["a", "c"]
        assert named.pop("b") == 3 and named.popitem() == ("d", 4) and "b" not in named and len(named.copy()) == 2
        named.clear()
        assert not list(named.parameters())

    def test_they_print_as_pytorchs(self):
        torch = pytest.importorskip("torch", reason="needs PyTorch to compare with")

        def build(framework):
            n = framework.nn
            block = [n.Sequential(n.Linear(2, 2), n.ReLU()) for _ in range(3)]
            ones = framework.ones(2, 3)
            return [
                n.Sequential(),
                n.Sequential(n.Linear(2, 3), n.Sequential(n.ReLU(), n.Dropout(0.1))),
                n.ModuleList([*block, n.Tanh(), n.Tanh()]),
                n.ModuleList(),
                n.ModuleDict({"a": n.ModuleList([n.Tanh()]), "b": block[0]}),
                n.ParameterList([ones, 5]),
            ]

        for mine, other in zip(build(disttorch), build(torch)):
            assert repr(mine).replace("disttorch.", "torch.") == repr(other)


def test_a_call_without_hooks_is_little_more_than_forward():
    calls = []

    class Echo(nn.Module):
        def forward(self, *args, **kwargs):
            calls.append((args, kwargs))
            return len(calls)

    echo = Echo()
    assert echo(1, key=2) == 1 and calls == [((1,), {"key": 2})]
    assert echo._hooks is None


def test_training_a_small_network_lowers_the_loss():
    disttorch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = disttorch.tensor(rng.normal(size=(64, 1, 8, 8)).astype(np.float32))
    y = disttorch.tensor((x.numpy().mean((1, 2, 3)) > 0).astype(np.int64))
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2)
    )
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), y)
        model.zero_grad()
        loss.backward()
        with disttorch.no_grad():
            for p in model.parameters():
                p -= 0.2 * p.grad
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 0.5 < losses[0]
    accuracy = (model.eval()(x).argmax(1) == y).to(disttorch.float32).mean().item()
    assert accuracy > 0.9
