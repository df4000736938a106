"""Attention, multi-head attention and the transformer: formulas, derivatives, masks, memory; PyTorch's where it is installed."""

import copy
import itertools
import tracemalloc

import numpy as np
import pytest

import disttorch
from disttorch.autograd import gradcheck, gradgradcheck
from disttorch.nn.attention import SDPBackend, current_backends, sdpa_kernel

nn = disttorch.nn
F = nn.functional
attention = F.scaled_dot_product_attention


@pytest.fixture(autouse=True)
def seeded():
    disttorch.manual_seed(7)


def randn(*shape):
    return disttorch.randn(*shape, dtype=disttorch.float64, requires_grad=True)


def close(a, b, tolerance=1e-11):
    a, b = (t.detach().numpy() if isinstance(t, disttorch.Tensor) else np.asarray(t) for t in (a, b))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def causal_mask(n):
    return nn.Transformer.generate_square_subsequent_mask(n, dtype=disttorch.float64)


def two_keys_off():
    mask = disttorch.ones(3, 5, dtype=disttorch.bool)
    mask[1] = False
    mask[0, 2:4] = False
    return mask


CASES = {
    "plain": lambda q, k, v, m: attention(q, k, v),
    "bool mask": lambda q, k, v, m: attention(q, k, v, two_keys_off()),
    "mask": lambda q, k, v, m: attention(q, k, v, m),
    "causal": lambda q, k, v, m: attention(q, k, v, is_causal=True),
    "scale": lambda q, k, v, m: attention(q, k, v, scale=-0.7),
    "dropout": lambda q, k, v, m: (disttorch.manual_seed(1), attention(q, k, v, m, 0.4))[1],
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name):
    inputs = (randn(2, 3, 4), randn(2, 5, 4), randn(2, 5, 2), randn(3, 5))
    uses = inputs if name in ("mask", "dropout") else inputs[:3]

    def run(*given):
        return CASES[name](*given, *inputs[len(given) :])

    assert gradcheck(run, uses)
    assert gradgradcheck(run, uses)


def test_is_softmax_of_products():
    q, k, v = randn(2, 3, 4, 6), randn(2, 3, 5, 6), randn(2, 3, 5, 7)
    weights = F.softmax(q @ k.transpose(-1, -2) / 6**0.5, -1)
    close(attention(q, k, v), weights @ v)
    square = attention(q, k[..., :4, :], v[..., :4, :], is_causal=True)
    close(square, attention(q, k[..., :4, :], v[..., :4, :], causal_mask(4)))
    close(attention(q[0, 0], k[0, 0], v[0, 0]), (weights @ v)[0, 0])
    masked = attention(q[..., :3, :], k, v, two_keys_off())
    assert not masked[..., 1, :].detach().numpy().any()
    both = attention(q, k, v, is_causal=True, attn_mask=disttorch.ones(4, 5, dtype=disttorch.bool))
    close(both, attention(q, k, v, is_causal=True))


def test_batches_are_broadcast_and_heads_grouped():
    q, k, v = randn(2, 4, 3, 6), randn(1, 1, 5, 6), randn(4, 5, 7)
    close(attention(q, k, v), attention(q, k.expand(2, 4, 5, 6), v.expand(2, 4, 5, 7)))
    k, v = randn(2, 2, 5, 6), randn(2, 1, 5, 7)
    grouped = attention(q, k, v, enable_gqa=True)
    for head in range(4):
        close(grouped[:, head], attention(q[:, head], k[:, head // 2], v[:, 0]))
    assert gradcheck(lambda *a: attention(*a, enable_gqa=True), (randn(4, 2, 2), randn(2, 3, 2), randn(2, 3, 2)))


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "Tensor", lambda q, k, v: attention(q, k, 3)),
        (RuntimeError, "2 dimensional", lambda q, k, v: attention(q[0, 0], k, v)),
        (RuntimeError, "same dtype", lambda q, k, v: attention(q.float(), k, v)),
        (RuntimeError, "floating", lambda q, k, v: attention(q.int(), k.int(), v.int())),
        (RuntimeError, "attn_mask dtype", lambda q, k, v: attention(q, k, v, disttorch.ones(3, 5, dtype=disttorch.int32))),
        (RuntimeError, r"\[2, 5, 3\]", lambda q, k, v: attention(q, k[..., :3], v)),
        (RuntimeError, r"\[2, 4, 4\]", lambda q, k, v: attention(q, k, v[:, :4])),
        (RuntimeError, "broadcast", lambda q, k, v: attention(q, k, v, disttorch.ones(2, 5))),
        (RuntimeError, "broadcast", lambda q, k, v: attention(q, k, v, disttorch.ones(3, 3, 5))),
        (IndexError, "2 dimensions", lambda q, k, v: attention(q, k, v, disttorch.ones(5))),
        (RuntimeError, "between 0 and 1", lambda q, k, v: attention(q, k, v, dropout_p=1.5)),
        (RuntimeError, "divide", lambda q, k, v: attention(disttorch.zeros(5, 3, 4).double(), k, v, enable_gqa=True)),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call(disttorch.zeros(2, 3, 4).double(), disttorch.zeros(2, 5, 4).double(), disttorch.zeros(2, 5, 4).double())


def test_dropout_keeps_the_mean():
    q, k, v = disttorch.zeros(64, 8, 4), disttorch.zeros(64, 50, 4), disttorch.ones(64, 50, 1)
    out = attention(q, k, v, dropout_p=0.3)  # each is the share of 50 weights that is left, divided by 0.7
    share = out.numpy() * 0.7 * 50
    np.testing.assert_allclose(share, share.round(), atol=1e-3)
    assert abs(out.mean().item() - 1) < 5 * (0.3 / 0.7 / 50 / out.numel()) ** 0.5
    assert (attention(q, k, v, dropout_p=0.3) != out).any()


@pytest.mark.parametrize("causal", [False, True])
def test_memory_does_not_grow_with_the_product_of_lengths(causal):
    peaks = []
    for n in (1024, 4096):
        q, k, v = (disttorch.randn(1, 2, n, 8, requires_grad=True) for _ in range(3))
        tracemalloc.start()
        attention(q, k, v, is_causal=causal).sum().backward()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 5 * peaks[0]
    assert peaks[1] < 2 * 4096 * 4096 * 4 / 8  # all weights would be 128 MiB


def test_a_result_changed_in_place_is_noticed():
    q, k, v = randn(2, 3, 4), randn(2, 5, 4), randn(2, 5, 4)
    out = attention(q, k, v)
    out.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        out.sum().backward()


def test_backends_are_accepted():
    with sdpa_kernel([SDPBackend.MATH, SDPBackend.FLASH_ATTENTION], set_priority=True):
        assert current_backends() == (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION)
        with sdpa_kernel(SDPBackend.MATH):
            assert current_backends() == (SDPBackend.MATH,)
        assert len(current_backends()) == 2
    assert len(current_backends()) == 5
    with pytest.raises(AssertionError), sdpa_kernel("math"):
        pass


# --- multi-head attention ---------------------------------------------------------------------------------------------


def by_hand(module, query, key, value, mask=None):
    """The formula of "Attention is all you need", head by head, of (L, N, E) arrays; `mask` is (N, heads, L, S), added."""
    w = {k: p.detach().numpy() for k, p in module.state_dict().items()}
    e, h = module.embed_dim, module.num_heads
    if "in_proj_weight" in w:
        w["q_proj_weight"], w["k_proj_weight"], w["v_proj_weight"] = np.split(w["in_proj_weight"], 3)
    bq, bk, bv = np.split(w["in_proj_bias"], 3)
    q, k, v = (x.detach().numpy() for x in (query, key, value))
    q, k, v = q @ w["q_proj_weight"].T + bq, k @ w["k_proj_weight"].T + bk, v @ w["v_proj_weight"].T + bv
    output, all_weights = np.zeros(q.shape), np.zeros((q.shape[1], h, q.shape[0], k.shape[0]))
    for n, i in itertools.product(range(q.shape[1]), range(h)):
        part = slice(i * e // h, (i + 1) * e // h)
        s = q[:, n, part] @ k[:, n, part].T / (e // h) ** 0.5 + (0 if mask is None else mask[n, i])
        p = np.exp(s - s.max(1, keepdims=True))
        all_weights[n, i] = p / p.sum(1, keepdims=True)
        output[:, n, part] = all_weights[n, i] @ v[:, n, part]
    return output @ w["out_proj.weight"].T + w["out_proj.bias"], all_weights


def multihead(**options):
    module = nn.MultiheadAttention(6, 3, dtype=disttorch.float64, **options)
    for p in module.parameters():
        nn.init.normal_(p)
    return module


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("dims", [{}, {"kdim": 4, "vdim": 5}])
def test_multihead_attention_by_hand(dims, need_weights):
    module = multihead(**dims)
    q, k, v = randn(4, 2, 6), randn(5, 2, dims.get("kdim", 6)), randn(5, 2, dims.get("vdim", 6))
    rng = np.random.default_rng(3)
    own, padding = rng.normal(size=(6, 4, 5)), np.array([[False] * 5, [False, True, False, False, True]])
    mask = own.reshape(2, 3, 4, 5) + np.where(padding, -np.inf, 0)[:, None, None]
    output, weights = by_hand(module, q, k, v, mask)
    given = {"attn_mask": disttorch.tensor(own), "key_padding_mask": disttorch.tensor(np.where(padding, -np.inf, 0))}
    found, found_weights = module(q, k, v, need_weights=need_weights, average_attn_weights=False, **given)
    close(found, output)
    if not need_weights:
        assert found_weights is None
        return
    close(found_weights, weights)
    close(module(q, k, v, **given)[1], weights.mean(1))
    alone, weights_alone = module(q[:, 0], k[:, 0], v[:, 0], attn_mask=disttorch.tensor(own[:3]))
    close(alone, output[:, 0])
    close(weights_alone, weights[0].mean(0))


def test_multihead_attention_derivatives():
    module = nn.MultiheadAttention(2, 1, add_bias_kv=True, add_zero_attn=True, dtype=disttorch.float64)
    x, y = randn(2, 1, 2), randn(3, 1, 2)

    def run(x, y, *rest):
        return module(x, y, y, need_weights=False)[0]

    weights = tuple(module.parameters())
    assert gradcheck(run, (x, y, *weights))
    assert gradgradcheck(run, (x, y, module.in_proj_weight, module.bias_k))
    assert gradcheck(lambda x, y: module(x, y, y), (x, y))


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"bias": False}])
def test_with_and_without_weights_agree(options):
    module = multihead(batch_first=True, **options)
    x = randn(2, 5, 6)
    mask = disttorch.triu(disttorch.ones(5, 5, dtype=disttorch.bool), 1)
    padding = disttorch.tensor([[False] * 5, [False, False, False, True, True]])
    for given in ({}, {"attn_mask": mask}, {"key_padding_mask": padding}, {"attn_mask": mask, "key_padding_mask": padding}):
        close(module(x, x, x, **given)[0], module(x, x, x, need_weights=False, **given)[0])
    if not options:
        close(module(x, x, x, attn_mask=mask)[0], module(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0])
    with pytest.raises(RuntimeError, match="is_causal hint"):
        module(x, x, x, is_causal=True)


def test_dropout_of_weights_in_training_only():
    module = multihead(dropout=0.5)
    x = randn(4, 2, 6)
    for need_weights in (True, False):
        module.train()
        assert (module(x, x, x, need_weights=need_weights)[0] != module(x, x, x, need_weights=need_weights)[0]).any()
        module.eval()
        close(module(x, x, x, need_weights=need_weights)[0], by_hand(module, x, x, x)[0])


# --- transformer ------------------------------------------------------------------------------------------------------


def test_layers_are_what_the_paper_says():
    layer = nn.TransformerEncoderLayer(6, 3, 8, activation="gelu", norm_first=True, dtype=disttorch.float64).eval()
    x = randn(4, 2, 6)
    middle = x + layer.self_attn(layer.norm1(x), layer.norm1(x), layer.norm1(x))[0]
    close(layer(x), middle + layer.linear2(F.gelu(layer.linear1(layer.norm2(middle)))))
    layer.norm_first = False
    middle = layer.norm1(x + layer.self_attn(x, x, x)[0])
    close(layer(x), layer.norm2(middle + layer.linear2(F.gelu(layer.linear1(middle)))))


def test_stacks_copy_their_layer():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    stack = nn.TransformerEncoder(layer, 3, nn.LayerNorm(4), enable_nested_tensor=False)
    parameters = list(stack.parameters())
    assert len({id(p) for p in parameters}) == 3 * 12 + 2 and not {id(p) for p in layer.parameters()} & {id(p) for p in parameters}
    assert (stack.layers[0].linear1.weight == stack.layers[2].linear1.weight).all()
    assert copy.deepcopy(stack).state_dict().keys() == stack.state_dict().keys()


def test_a_causal_stack_does_not_see_the_future():
    stack = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dtype=disttorch.float64), 2).eval()
    x = randn(1, 5, 4)
    mask = causal_mask(5)
    for options in ({}, {"is_causal": True}, {"is_causal": False}):
        gradient = disttorch.autograd.grad(stack(x, mask, **options)[0, 2, 1], x)[0]
        assert not gradient[0, 3:].numpy().any() and gradient[0, :3].numpy().all()


def test_wrong_arguments():
    model = nn.Transformer(4, 2, 1, 1, 8)
    with pytest.raises(RuntimeError, match="batch number"):
        model(disttorch.zeros(3, 2, 4), disttorch.zeros(3, 1, 4))
    with pytest.raises(RuntimeError, match="feature number"):
        model(disttorch.zeros(3, 2, 4), disttorch.zeros(3, 2, 5))
    with pytest.raises(RuntimeError, match="relu/gelu"):
        nn.TransformerEncoderLayer(4, 2, activation="tanh")
    with pytest.raises(AssertionError):
        nn.MultiheadAttention(5, 2)
    with pytest.raises(ValueError, match="greater than 0"):
        nn.MultiheadAttention(0, 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_as_pytorch(training, norm_first, batch_first):
    torch = pytest.importorskip("torch")
    options = {"nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 8, "dropout": 0.0}
    options |= {"norm_first": norm_first, "batch_first": batch_first}
    torch.manual_seed(0)
    theirs = torch.nn.Transformer(4, **options).double().train(training)
    module = nn.Transformer(4, **options).double().train(training)
    assert list(module.state_dict()) == list(theirs.state_dict())
    module.load_state_dict({k: disttorch.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
    arrays = [np.random.default_rng(i).normal(size=s) for i, s in enumerate([(5, 3, 4), (6, 3, 4)])]
    padding = np.arange(5) >= np.array([5, 4, 2])[:, None]
    results = []
    for package, model in ((torch, theirs), (disttorch, module)):
        source, target = (package.tensor(a.swapaxes(0, 1) if batch_first else a, requires_grad=True) for a in arrays)
        mask = package.nn.Transformer.generate_square_subsequent_mask(6, dtype=package.float64)
        pads = package.tensor(padding)
        out = model(source, target, tgt_mask=mask, src_key_padding_mask=pads, memory_key_padding_mask=pads)
        out.cos().sum().backward()
        results.append([out, source.grad, target.grad, *(p.grad for p in model.parameters())])
    for want, got in zip(*results):
        np.testing.assert_allclose(got.detach().numpy(), want.detach().numpy(), rtol=1e-8, atol=1e-10)
    assert repr(module).replace("disttorch.", "") == repr(theirs).replace("torch.", "")
