"""The two tools that find mistakes: detect_anomaly and gradcheck."""

import math

import pytest

import disttorch
from disttorch.autograd import Function, GradcheckError, detect_anomaly, gradcheck, gradgradcheck, set_detect_anomaly


def leaf(*values, dtype=disttorch.float64):
    return disttorch.tensor(values, dtype=dtype, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: (x - x).sqrt() * 0, "SqrtBackward0"),
        (lambda x: disttorch.where(x > 10, (x - 20).sqrt(), x), None),
        (lambda x: ((x - x).log() * 0).exp(), "ExpBackward0"),
    ],
)
def test_detect_anomaly_names_the_operation_and_the_line(function, name):
    x = leaf(1.0, 4.0)
    if name is None:  # 0 * sqrt'(negative) is NaN behind the where
        name = "SqrtBackward0"
    with detect_anomaly():
        y = function(x)  # the line that is shown
        with (
            pytest.warns(UserWarning, match=f"Error detected in {name}") as warned,
            pytest.raises(RuntimeError, match=f"Function '{name}' returned nan values in its 0th output") as caught,
        ):
            y.sum().backward()
    assert "y = function(x)  # the line that is shown" in str(caught.value)
    assert "y = function(x)  # the line that is shown" in str(warned[0].message)


def test_without_anomaly_mode_nan_passes():
    x = leaf(0.0)
    ((x - x).sqrt() * 0).sum().backward()
    assert math.isnan(x.grad.item())


def test_set_detect_anomaly():
    x = leaf(0.0)
    set_detect_anomaly(True)
    try:
        with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="nan"):
            ((x - x).sqrt() * 0).sum().backward()
    finally:
        set_detect_anomaly(False)
    ((x - x).sqrt() * 0).sum().backward()
    with set_detect_anomaly(True), pytest.warns(UserWarning), pytest.raises(RuntimeError, match="nan"):
        ((x - x).sqrt() * 0).sum().backward()
    ((x - x).sqrt() * 0).sum().backward()
    with detect_anomaly(check_nan=False):
        ((x - x).sqrt() * 0).sum().backward()


def test_anomaly_mode_shows_where_a_changed_tensor_was_used():
    x = leaf(1.0, 2.0)
    with detect_anomaly():
        a = x * 1
        y = a * a  # used here
        a.zero_()
        with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="modified by an inplace") as caught:
            y.sum().backward()
    assert "y = a * a  # used here" in str(caught.value)


def test_anomaly_mode_covers_functions():
    class Bad(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * float("nan")

    with detect_anomaly():
        y = Bad.apply(leaf(1.0))
        with pytest.warns(UserWarning), pytest.raises(RuntimeError, match="BadBackward"):
            y.sum().backward()


def wrong(factor, offset=0.0):
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 2 * x * factor + offset

    return Wrong.apply


@pytest.mark.parametrize("function", [wrong(1.01), wrong(-1), wrong(1, 0.01), wrong(0)])
def test_gradcheck_catches_a_wrong_derivative(function):
    x = leaf(1.0, 2.0)
    with pytest.raises(
        GradcheckError, match=r"(?s)Jacobian mismatch for output 0 with respect to input 0.*numerical.*analytical"
    ):
        gradcheck(function, x)
    assert gradcheck(function, x, raise_exception=False) is False
    assert gradcheck(wrong(1), x)


def test_gradgradcheck_catches_a_wrong_second_derivative():
    class Wrong(Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x.detach()

    x = leaf(1.0, 2.0)
    assert gradcheck(Wrong.apply, x)
    with pytest.raises(GradcheckError):
        gradgradcheck(Wrong.apply, x)
    assert gradgradcheck(lambda x: x**3, x)


def test_gradcheck_catches_a_gradient_that_changes():
    calls = []

    class Moody(Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            calls.append(1)
            return g * (2 + 1e-7 * len(calls))

    with pytest.raises(GradcheckError, match="not reentrant"):
        gradcheck(Moody.apply, leaf(1.0))
    assert gradcheck(Moody.apply, leaf(1.0), nondet_tol=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: gradcheck(lambda x: x * 2, disttorch.ones(2)), ValueError, "require gradient"),
        (lambda: gradcheck(lambda x: x * 2, leaf(1.0, dtype=disttorch.float32)), UserWarning, "Input #0 .* is not a double"),
        (lambda: gradcheck(lambda x: x.detach(), leaf(1.0)), GradcheckError, "expected to be zero: result 0"),
        (
            lambda: gradcheck(lambda x: x, disttorch.ones(2, 1, dtype=disttorch.float64).expand(2, 3).requires_grad_()),
            RuntimeError,
            "stride 0",
        ),
    ],
)
def test_gradcheck_refuses_what_it_cannot_check(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_gradcheck_leaves_its_inputs_as_they_were():
    x = leaf(0.1, 0.2, 0.3)
    before = x.tolist()
    gradcheck(lambda x: x.sin(), x)
    assert x.tolist() == before and x.grad is None


def test_gradcheck_of_several_inputs_and_results():
    x, y, constant = leaf(1.0, 2.0), leaf(3.0), disttorch.tensor([5.0, 6.0], dtype=disttorch.float64)
    assert gradcheck(lambda x, y, c: (x * y, y.exp(), c, (x * c).sum()), (x, y, constant))


def complex_leaf():
    return disttorch.tensor([0.5 + 1j, -1.0 + 0.25j], dtype=disttorch.complex128, requires_grad=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fast_mode": True},
        {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True, "check_grad_dtypes": True},
        {"check_forward_ad": True, "check_backward_ad": False},
    ],
)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.exp() * x,
        lambda x: x * x.conj(),
        lambda x: (x.abs(), x.sum()),
        lambda x: x.real if x.is_complex() else x.sin(),
    ],
)
@pytest.mark.parametrize("make", [complex_leaf, lambda: leaf(0.5, -1.0)])
def test_gradcheck_of_right_derivatives(function, options, make):
    assert gradcheck(function, make(), **options)


@pytest.mark.parametrize("options", [{}, {"fast_mode": True}, {"check_forward_ad": True, "check_backward_ad": False}])
@pytest.mark.parametrize("make", [complex_leaf, lambda: leaf(0.5, -1.0)])
def test_gradcheck_of_wrong_derivatives(options, make):
    assert not gradcheck(lambda x: x.detach() * x, make(), raise_exception=False, **options)
    with pytest.raises(GradcheckError, match="mismatch"):
        gradcheck(lambda x: x.detach() * x, make(), **options)
    assert gradgradcheck(lambda x: x**3, make(), check_fwd_over_rev=True, gen_non_contig_grad_outputs=True)


def test_gradcheck_of_undefined_gradients():
    class Undefined(Function):
        """Takes what no gradient reached for ones."""

        @staticmethod
        def forward(ctx, x):
            ctx.set_materialize_grads(False)
            return x * 2, x * 3

        @staticmethod
        def backward(ctx, g, h):
            return (2 if g is None else g * 2) + (3 if h is None else h * 3) + 0 * (h if g is None else g)

    with pytest.raises(GradcheckError, match=r"undefined output grads|mismatch"):
        gradcheck(Undefined.apply, leaf(1.0, 2.0))


@pytest.mark.parametrize(
    "options", [{"check_backward_ad": False}, {"check_forward_ad": True, "check_backward_ad": False, "check_batched_grad": True}]
)
def test_gradcheck_needs_something_to_check(options):
    with pytest.raises(AssertionError):
        gradcheck(lambda x: x, leaf(1.0), **options)


def test_anomaly_mode_without_the_look_for_nan_still_says_where():
    with detect_anomaly(check_nan=False):
        x = leaf(1.0, 2.0)
        a = x * 1
        y = a * a  # here it was
        a.zero_()
        with pytest.warns(UserWarning, match="here it was"), pytest.raises(RuntimeError, match="modified by an inplace"):
            y.sum().backward()
    y = x * x
    with detect_anomaly(), pytest.warns(UserWarning, match="No forward pass information"), pytest.raises(RuntimeError, match="nan"):
        y.backward(disttorch.full((2,), float("nan"), dtype=disttorch.float64))
