"""Modules whose parameters lie with channels last: everything that touches them gives what it gives of parameters in C order."""

import copy
import pickle

import numpy as np
import pytest

import disttorch
from disttorch import nn, optim
from disttorch.func import functional_call, grad, vmap
from disttorch.nn import functional as F
from disttorch.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    parameters_to_vector,
    parametrizations,
    prune,
    spectral_norm,
    vector_to_parameters,
    weight_norm,
)

f64 = disttorch.float64
LAST = disttorch.channels_last


def network(dtype=f64):
    """A small one that has what networks of images have: a 3x3, a grouped, a 1x1 and a transposed convolution."""
    disttorch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1),
        nn.ConvTranspose2d(4, 5, 2, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).to(dtype)  # fmt: skip


def batch(dtype=f64):
    rng = np.random.default_rng(1)
    return disttorch.tensor(rng.standard_normal((4, 3, 8, 8)), dtype=dtype), disttorch.tensor([0, 2, 1, 0])


def loss_of(model, last=False):
    x, y = batch(next(model.parameters()).dtype)
    return F.cross_entropy(model(x.to(memory_format=LAST) if last else x), y)


def values(tensors):
    return [np.array(t.detach().numpy()) for t in tensors]


def alike(have, want, tolerance=1e-12):
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_strides_of_parameters_and_gradients_are_pytorchs():
    torch = pytest.importorskip("torch")
    lie = []
    for m in (torch, disttorch):
        model = m.nn.Sequential(m.nn.Conv2d(3, 8, 3), m.nn.BatchNorm2d(8), m.nn.Conv2d(8, 4, 1), m.nn.ConvTranspose2d(4, 5, 2))
        model.register_buffer("table", m.zeros(2, 3, 4, 5))
        model = model.to(memory_format=m.channels_last)
        for x in (m.ones(2, 3, 6, 6), m.ones(2, 3, 6, 6).to(memory_format=m.channels_last)):  # made, then added to
            model(x).sum().backward()
        tensors = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
        lie.append([(tuple(t.shape), tuple(t.stride())) for t in tensors])
    assert lie[1] == lie[0]


def test_a_format_for_another_number_of_dimensions_is_refused():
    with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last format"):
        nn.Conv3d(2, 2, 1).to(memory_format=LAST)
    module = nn.Conv3d(2, 3, 2).to(memory_format=disttorch.channels_last_3d)
    assert module.weight.is_contiguous(memory_format=disttorch.channels_last_3d)
    module = nn.Conv2d(2, 3, 2).to(LAST)
    assert module.weight.is_contiguous(memory_format=LAST) and not module.weight.is_contiguous()


def test_a_module_keeps_its_gradients_and_its_parameters_objects():
    model = network()
    loss_of(model).backward()
    objects, before = list(model.parameters()), values(p.grad for p in model.parameters())
    assert all(a is b for a, b in zip(model.to(memory_format=LAST).parameters(), objects))
    assert model[0].weight.grad.is_contiguous(memory_format=LAST)
    alike(values(p.grad for p in model.parameters()), before, 0)
    model.to(memory_format=disttorch.contiguous_format)
    assert model[0].weight.is_contiguous() and model[0].weight.grad.is_contiguous()


OPTIMIZERS = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}), ("Adam", {"amsgrad": True}), ("AdamW", {}),
    ("Adamax", {}), ("NAdam", {}), ("RAdam", {}), ("Adagrad", {}), ("Adadelta", {}), ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Rprop", {}), ("ASGD", {}), ("Adafactor", {}), ("Adam", {"foreach": True}), ("AdamW", {"fused": True}),
    ("AdamW", {"capturable": True}), ("SGD", {"lr": 0.1, "momentum": 0.5, "fused": True}), ("Adam", {"maximize": True, "lr": 1e-4}),
]  # fmt: skip


def trained(name, options, last, dtype=f64, reload=False):
    model = network(dtype)
    if last:
        model = model.to(memory_format=LAST)
    optimizer = getattr(optim, name)(model.parameters(), **options)
    for step in range(3):
        if reload and step == 2:  # what was saved in C order
            saved = optimizer.state_dict()
            saved = {
                **saved, "state": {k: {n: t.contiguous() if isinstance(t, disttorch.Tensor) else t for n, t in s.items()}
                                   for k, s in saved["state"].items()}
            }  # fmt: skip
            optimizer.load_state_dict(saved)
        optimizer.zero_grad(set_to_none=step == 1)
        loss_of(model, last).backward()
        loss_of(model, last).backward()
        optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=lambda v: v if isinstance(v, str) else "-".join(v) or "plain")
def test_training_with_every_optimizer(name, options):
    (want, _), (have, optimizer) = (trained(name, options, last) for last in (False, True))
    alike(values(have.parameters()), values(want.parameters()), 1e-9)
    alike(values(have.buffers()), values(want.buffers()), 1e-9)
    for p in have.parameters():
        assert p.grad.stride() == p.stride()
        for name in set(optimizer.moments) & set(optimizer.state[p]):
            assert optimizer.state[p][name].stride() == p.stride()
    assert have[0].weight.is_contiguous(memory_format=LAST)


def test_an_optimizers_state_lies_as_the_parameter_does_when_it_is_loaded():
    model, optimizer = trained("Adam", {}, True, reload=True)
    alike(values(model.parameters()), values(trained("Adam", {}, False)[0].parameters()), 1e-9)
    weight = model[0].weight
    assert optimizer.state[weight]["exp_avg"].stride() == weight.stride()


def test_parameters_that_are_laid_out_anew_between_steps():
    want = trained("AdamW", {}, False)[0]
    model = network()
    optimizer = optim.AdamW(model.parameters())
    for step in range(3):
        model.to(memory_format=(LAST, disttorch.contiguous_format)[step % 2])
        optimizer.zero_grad()
        loss_of(model).backward()
        loss_of(model).backward()
        optimizer.step()
    alike(values(model.parameters()), values(want.parameters()), 1e-9)


def test_lbfgs():
    results = []
    for last in (False, True):
        model = network()
        if last:
            model.to(memory_format=LAST)
        optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

        def closure(model=model, last=last, optimizer=optimizer):
            optimizer.zero_grad()
            loss = loss_of(model, last)
            loss.backward()
            return loss

        optimizer.step(closure)
        results.append(values(model.parameters()))
    alike(results[1], results[0], 1e-7)


def with_gradients(last):
    model = network()
    if last:
        model.to(memory_format=LAST)
    loss_of(model, last).backward()
    return model


def _clipped(model, last):
    norm = clip_grad_norm_(model.parameters(), 0.1)
    return [norm, *(p.grad for p in model.parameters())]


def _clipped_by_value(model, last):
    clip_grad_value_(model.parameters(), 0.01)
    return [p.grad for p in model.parameters()]


def _vector(model, last):
    vector = parameters_to_vector(model.parameters())
    vector_to_parameters(vector * 2, model.parameters())
    return [vector, *model.parameters()]


def _averaged(model, last):
    average = optim.swa_utils.AveragedModel(model, multi_avg_fn=optim.swa_utils.get_ema_multi_avg_fn(0.9))
    for _ in range(2):
        average.update_parameters(model)
        with disttorch.no_grad():
            for p in model.parameters():
                p.mul_(1.5)
    assert average.module[0].weight.is_contiguous(memory_format=LAST) or not last
    return list(average.parameters())


def _loaded(model, last):
    other = network()
    with disttorch.no_grad():
        for p in other.parameters():
            p.zero_()
    other.load_state_dict(model.state_dict())
    assert other[0].weight.is_contiguous()
    model.load_state_dict({k: v.contiguous() for k, v in model.state_dict().items()})
    assert model[0].weight.is_contiguous(memory_format=LAST) or not last
    return [*other.parameters(), *model.parameters()]


def _copied(model, last):
    other = copy.deepcopy(model)
    assert other[0].weight.stride() == model[0].weight.stride() and other[0].weight.grad.stride() == model[0].weight.stride()
    return [*other.parameters(), *(p.grad for p in other.parameters())]


def _pickled(model, last):
    other = pickle.loads(pickle.dumps(model.cpu()))
    assert other[0].weight.stride() == model[0].weight.stride()
    return list(other.parameters())


def _called(model, last):
    return [functional_call(model, {n: p * 0.5 for n, p in model.named_parameters()}, (batch()[0],))]


def _per_sample(model, last):
    model.eval()
    x, y = batch()
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    return list(vmap(grad(loss), (None, 0, 0))(parameters, x, y).values())


def _ensemble(model, last):
    stacked = {n: disttorch.stack([p.detach(), p.detach() * 2]) for n, p in model.named_parameters()}
    model.eval()
    return [vmap(lambda p: functional_call(model, p, (batch()[0],)))(stacked)]


def _weight_norm(model, last):
    with pytest.warns(FutureWarning, match="deprecated"):
        weight_norm(model[0])
    parametrizations.weight_norm(model[4])
    loss_of(model, last).backward()
    return [p.grad for p in model.parameters()]


def _spectral_norm(model, last):
    disttorch.manual_seed(3)
    spectral_norm(model[0])
    parametrizations.spectral_norm(model[6])
    return [model(batch()[0])]


def _pruned(model, last):
    prune.l1_unstructured(model[0], "weight", 0.4)
    prune.ln_structured(model[6], "weight", 0.5, 2, 0)
    prune.global_unstructured([(model[4], "weight"), (model[7], "weight")], prune.L1Unstructured, amount=0.3)
    return [model(batch()[0]), model[4].weight, model[7].weight]


def _scaled(model, last):
    scaler = disttorch.amp.GradScaler(model[0].weight.device.type, init_scale=8.0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    scaler.scale(loss_of(model, last)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    return list(model.parameters())


def _twice_differentiated(model, last):
    parameters = list(model.parameters())
    gradients = disttorch.autograd.grad(loss_of(model, last), parameters, create_graph=True)
    return disttorch.autograd.grad(sum((g * g).sum() for g in gradients), parameters)


USES = [
    _clipped, _clipped_by_value, _vector, _averaged, _loaded, _copied, _pickled, _called, _per_sample, _ensemble, _weight_norm,
    _spectral_norm, _pruned, _scaled, _twice_differentiated,
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=lambda f: f.__name__.strip("_"))
def test_what_is_done_with_parameters(use):
    want, have = (values(use(with_gradients(last), last)) for last in (False, True))
    alike(have, want, 1e-9)
