"""RNN, LSTM and GRU: layers, directions, packed sequences, states and second derivatives; PyTorch's where it is installed."""

import copy
import pickle

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck

nn = disttorch.nn
CLASSES = {"RNN": {}, "RNN relu": {"nonlinearity": "relu"}, "LSTM": {}, "LSTM projected": {"proj_size": 2}, "GRU": {}}


def made(kind, *sizes, **options):
    name = kind.split()[0]
    return getattr(nn, name)(*sizes, **CLASSES[kind], **options, dtype=disttorch.float64)


def randn(*shape):
    return disttorch.randn(*shape, dtype=disttorch.float64, requires_grad=True)


def as_list(states):
    return list(states) if isinstance(states, tuple) else [states]


def close(a, b):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-12)


@pytest.fixture(autouse=True)
def seeded():
    disttorch.manual_seed(4)


@pytest.mark.parametrize("kind", CLASSES)
def test_gradients_and_their_gradients(kind):
    module = made(kind, 2, 3, num_layers=2, bidirectional=True)
    x = randn(3, 2, 2)
    states = [randn(4, 2, module.proj_size or 3)] + [randn(4, 2, 3)] * kind.startswith("LSTM")
    weights = list(module.parameters())

    def run(x, *rest):
        hx = tuple(rest[: len(states)])
        output, last = module(x, hx if len(hx) > 1 else hx[0])
        return (output, *as_list(last))

    assert gradcheck(run, (x, *states, *weights))
    small = made(kind, 2, 3)
    start = [s[:1].detach().requires_grad_() for s in states]
    few = [small.weight_ih_l0, small.weight_hh_l0, small.bias_hh_l0]

    def run_small(x, *rest):
        output, last = small(x, tuple(rest[: len(start)]) if len(start) > 1 else rest[0])
        return (output, *as_list(last))

    assert gradgradcheck(run_small, (randn(2, 2, 2), *start, *few))


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", CLASSES)
def test_packed_is_each_sequence_by_itself(kind, enforce_sorted):
    module = made(kind, 3, 4, num_layers=2, bidirectional=True)
    lengths = [5, 3, 3, 1] if enforce_sorted else [3, 5, 1, 3]
    x = randn(5, 4, 3)
    states = [randn(4, 4, module.proj_size or 4)] + [randn(4, 4, 4)] * kind.startswith("LSTM")
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
    output, last = module(packed, tuple(states) if len(states) > 1 else states[0])
    assert isinstance(output, nn.utils.rnn.PackedSequence)
    padded, found = nn.utils.rnn.pad_packed_sequence(output)
    assert found.tolist() == lengths
    weights = randn(*padded.shape).detach()
    (padded * weights).sum().backward()
    packed_gradient, x.grad = x.grad, None
    weight_gradients = [p.grad for p in module.parameters()]
    module.zero_grad()
    total = 0.0
    for b, n in enumerate(lengths):
        own = [s[:, b : b + 1] for s in states]
        alone, states_alone = module(x[:n, b : b + 1], tuple(own) if len(own) > 1 else own[0])
        close(padded[:n, b : b + 1], alone)
        assert not padded[n:, b].detach().numpy().any()
        for a, s in zip(as_list(last), as_list(states_alone)):
            close(a[:, b : b + 1], s)
        total = total + (alone * weights[:n, b : b + 1]).sum()
    total.backward()
    close(packed_gradient, x.grad)
    for gradient, p in zip(weight_gradients, module.parameters()):
        close(gradient, p.grad)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_sequence_is_steps_of_a_cell(kind):
    if kind == "LSTM projected":
        module = nn.LSTM(3, 4, proj_size=2)
        assert module(disttorch.randn(5, 3))[0].shape == (5, 2)  # no cell has a projection
        return
    module = made(kind, 3, 4)
    cell = getattr(nn, kind.split()[0] + "Cell")(3, 4, **CLASSES[kind], dtype=disttorch.float64)
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in module.state_dict().items()})
    x = randn(5, 2, 3)
    output, last = module(x)
    state = None
    for t in range(5):
        state = cell(x[t], state)
        close(output[t], as_list(state)[0])
    for a, b in zip(as_list(last), as_list(state)):
        close(a[0], b)
    alone = cell(x[0, 0])
    close(as_list(alone)[0], output[0, 0])


@pytest.mark.parametrize("kind", CLASSES)
def test_layouts(kind):
    module = made(kind, 3, 4, num_layers=2)
    turned = copy.deepcopy(module)
    turned.batch_first = True
    x = randn(5, 2, 3)
    output, last = module(x)
    output_turned, last_turned = turned(x.transpose(0, 1))
    close(output, output_turned.transpose(0, 1))
    output_alone, last_alone = module(x[:, 1])
    close(output[:, 1], output_alone)
    for a, b, c in zip(as_list(last), as_list(last_turned), as_list(last_alone)):
        close(a, b)
        close(a[:, 1], c)
    assert pickle.loads(pickle.dumps(module))(x)[0].shape == output.shape


def test_dropout_is_between_layers_and_in_training_only():
    module = nn.GRU(3, 50, num_layers=2, dropout=0.5)
    x = disttorch.randn(4, 8, 3)
    a, b = module(x)[0], module(x)[0]
    assert (a != b).any()
    module.eval()
    close(module(x)[0], module(x)[0])
    first = nn.GRU(3, 50)
    first.load_state_dict({k: v for k, v in module.state_dict().items() if k.endswith("_l0")})
    module.train()
    close(module(x)[1][0], first(x)[1][0])  # nothing is dropped below the first layer
    with pytest.warns(UserWarning, match="num_layers greater"):
        nn.LSTM(2, 2, dropout=0.5)


def test_names_and_attributes():
    module = nn.LSTM(3, 4, 2, proj_size=2, bidirectional=True)
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    expected = [f"{n}_l{layer}{suffix}" for layer in (0, 1) for suffix in ("", "_reverse") for n in names]
    assert list(module.state_dict()) == expected
    assert [[p.shape for p in group] for group in module.all_weights] == [
        [(16, 3), (16, 2), (16,), (16,), (2, 4)], [(16, 3), (16, 2), (16,), (16,), (2, 4)],
        [(16, 4), (16, 2), (16,), (16,), (2, 4)], [(16, 4), (16, 2), (16,), (16,), (2, 4)],
    ]  # fmt: skip
    assert module._flat_weights_names == expected and len(module._flat_weights) == len(expected)
    assert repr(module) == "LSTM(3, 4, proj_size=2, num_layers=2, bidirectional=True)"
    assert repr(nn.RNN(3, 4, 1, "relu", False, True)) == "RNN(3, 4, bias=False, batch_first=True)"
    assert repr(nn.RNNCell(3, 4, False, "relu")) == "RNNCell(3, 4, bias=False, nonlinearity=relu)"
    large = nn.GRU(3, 400)
    w = large.weight_hh_l0.detach().numpy()
    assert 0.049 < np.abs(w).max() <= 0.05 and abs(w.std() - 0.05 / 3**0.5) < 1e-3
    large.flatten_parameters()


@pytest.mark.parametrize(
    ("error", "make"),
    [
        (ValueError, lambda: nn.LSTM(4, 2)(disttorch.zeros(4))),
        (ValueError, lambda: nn.LSTM(4, 2)(disttorch.zeros(5, 3, 4, dtype=disttorch.float64))),
        (RuntimeError, lambda: nn.LSTM(4, 2)(disttorch.zeros(5, 3, 7))),
        (RuntimeError, lambda: nn.LSTM(4, 2)(disttorch.zeros(0, 3, 4))),
        (RuntimeError, lambda: nn.GRU(4, 2)(disttorch.zeros(5, 3, 4), disttorch.zeros(3, 2))),
        (RuntimeError, lambda: nn.GRU(4, 2)(disttorch.zeros(5, 3, 4), disttorch.zeros(1, 4, 2))),
        (RuntimeError, lambda: nn.GRU(4, 2)(disttorch.zeros(5, 4), disttorch.zeros(1, 3, 2))),
        (RuntimeError, lambda: nn.GRU(4, 2)(disttorch.zeros(5, 3, 4), disttorch.zeros(1, 3, 2, dtype=disttorch.float64))),
        (RuntimeError, lambda: nn.GRUCell(4, 2)(disttorch.zeros(3, 4, dtype=disttorch.float64))),
        (ValueError, lambda: nn.GRU(4, 2, proj_size=1)),
        (ValueError, lambda: nn.LSTM(4, 2, proj_size=2)),
        (TypeError, lambda: nn.LSTM(4, 2.0)),
        (TypeError, lambda: nn.LSTM(4, 2, bias=1)),
        (ValueError, lambda: nn.LSTM(4, 0)),
        (ValueError, lambda: nn.LSTM(4, 2, dropout=True)),
        (ValueError, lambda: nn.RNN(4, 2, nonlinearity="sin")),
        (RuntimeError, lambda: nn.RNNCell(4, 2, nonlinearity="sin")(disttorch.zeros(2, 4))),
        (RuntimeError, lambda: nn.LSTMCell(4, 2)(disttorch.zeros(2, 5))),
        (ValueError, lambda: nn.LSTMCell(4, 2)(disttorch.zeros(2, 5, 4))),
        (RuntimeError, lambda: nn.GRUCell(4, 2)(disttorch.zeros(2, 4), disttorch.zeros(3, 2))),
        (ValueError, lambda: nn.GRUCell(4, 2)(disttorch.zeros(2, 4), disttorch.zeros(1, 2, 2))),
    ],
)
def test_errors(error, make):
    with pytest.raises(error):
        make()


def test_a_result_changed_in_place_does_not_disturb_backward():
    module = made("GRU", 3, 4)
    x = randn(5, 2, 3)
    expected = disttorch.autograd.grad(module(x)[0].sum(), x)[0]
    output, last = module(x)
    output.add_(1)
    last.mul_(0)
    close(disttorch.autograd.grad(output.sum(), x)[0], expected)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", CLASSES)
def test_as_pytorch(kind, dtype):
    torch = pytest.importorskip("torch")
    theirs_type, tolerance = getattr(torch, dtype), 2e-5 if dtype == "float32" else 1e-11
    name = kind.split()[0]
    options = dict(num_layers=2, bidirectional=True, batch_first=True, **CLASSES[kind])
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(6, 8, **options).to(theirs_type)
    module = getattr(nn, name)(6, 8, **options).to(getattr(disttorch, dtype))
    module.load_state_dict({k: disttorch.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    t = torch.randn(14, 7, 6, dtype=theirs_type, requires_grad=True)
    x = disttorch.tensor(t.detach().numpy(), requires_grad=True)
    lengths = [7] * 5 + [6] * 4 + [2] * 5
    p = torch.nn.utils.rnn.pack_padded_sequence(t, lengths, batch_first=True)
    q = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
    for a, b in ((t, x), (p, q)):
        t.grad = x.grad = None
        theirs.zero_grad()
        module.zero_grad()
        (want, want_last), (got, got_last) = theirs(a), module(b)
        want, got = (r.data if hasattr(r, "batch_sizes") else r for r in (want, got))
        for w, g in [(want, got), *zip(as_list(want_last), as_list(got_last))]:
            np.testing.assert_allclose(g.detach().numpy(), w.detach().numpy(), rtol=tolerance, atol=tolerance)
        (want.cos().sum() + as_list(want_last)[-1].sum()).backward()
        (got.cos().sum() + as_list(got_last)[-1].sum()).backward()
        pairs = [(t.grad, x.grad), *((w.grad, dict(module.named_parameters())[n].grad) for n, w in theirs.named_parameters())]
        for w, g in pairs:
            size = max(1.0, w.abs().max().item())
            np.testing.assert_allclose(g.numpy(), w.numpy(), rtol=tolerance, atol=tolerance * size)
