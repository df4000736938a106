"""The array API standard: against NumPy, whose main namespace has it since version 2, and the standard's signatures."""

import inspect

import numpy as np
import pytest

import disttorch as torch

xp = torch.zeros(1).__array_namespace__()
RNG = np.random.default_rng(3)
SIGNED, UNSIGNED = ("int8", "int16", "int32", "int64"), ("uint8", "uint16", "uint32", "uint64")
REAL, COMPLEX = ("float32", "float64"), ("complex64", "complex128")
INTEGRAL = SIGNED + UNSIGNED
NUMERIC = INTEGRAL + REAL + COMPLEX
ALL = ("bool", *NUMERIC)


def array(dtype, shape=(2, 3, 4)):
    values = RNG.integers(1, 6, shape) if dtype in UNSIGNED else RNG.integers(-5, 6, shape)
    if dtype in REAL + COMPLEX:
        values = values + RNG.random(shape).round(2)
    return (values + 1j * RNG.integers(-3, 4, shape) if dtype in COMPLEX else values > 0 if dtype == "bool" else values).astype(dtype)


def ours(value):
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, np.dtype):
        return getattr(xp, value.name)
    return type(value)(ours(v) for v in value) if isinstance(value, (list, tuple)) else value


def same(got, want, name=""):
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w, name)
        if hasattr(want, "_fields"):
            assert got._fields == want._fields
        return
    want = np.asarray(want)
    assert isinstance(got, torch.Tensor), name
    assert (got.dtype.name, tuple(got.shape)) == (want.dtype.name, want.shape), name
    tolerance = 1e-4 if want.dtype in (np.float32, np.complex64) else 1e-9
    np.testing.assert_allclose(got.numpy().astype(want.dtype), want, rtol=tolerance, atol=tolerance, err_msg=name)


def check(name, label, /, *args, **options):
    function, theirs = xp, np
    for part in name.split("."):
        function, theirs = getattr(function, part), getattr(theirs, part)
    same(function(*ours(args), **{k: ours(v) for k, v in options.items()}), theirs(*args, **options), f"{name} {label}")


ONE = {
    ALL: "isfinite isinf isnan",
    ("bool", *INTEGRAL): "bitwise_invert",
    ("bool",): "logical_not",
    NUMERIC: "positive square abs",
    INTEGRAL + REAL: "ceil floor trunc round",
    SIGNED + REAL + COMPLEX: "negative sign",
    REAL: "signbit log1p expm1",
    REAL + COMPLEX: "exp cos sin cosh sinh tan tanh sqrt reciprocal asinh log log10 log2",
    COMPLEX: "conj imag real acos asin atan acosh atanh",
}


@pytest.mark.parametrize(("name", "dtypes"), [(n, d) for d, names in ONE.items() for n in names.split()])
def test_of_one_array(name, dtypes):
    for dtype in dtypes:
        x = array(dtype)
        if dtype in REAL and name in ("log", "log10", "log2", "sqrt", "log1p"):
            x = np.abs(x)
        check(name, dtype, x)
        check(name, dtype, x[:0])
        check(name, dtype, x[0, 0, 0:1].reshape(()))


def test_functions_of_a_part_of_the_line():
    for name, low, high in (("acos", -1, 1), ("asin", -1, 1), ("atan", -9, 9), ("acosh", 1, 9), ("atanh", -0.9, 0.9)):
        for dtype in REAL:
            check(name, dtype, np.linspace(low, high, 20, dtype=dtype))


TWO = {
    ("bool",): "logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor",
    INTEGRAL: "bitwise_and bitwise_or bitwise_xor",
    ALL: "equal not_equal",
    NUMERIC: "add subtract multiply",
    INTEGRAL + REAL: "less less_equal greater greater_equal maximum minimum",
    REAL + COMPLEX: "divide",
    REAL: "atan2 copysign hypot logaddexp nextafter remainder floor_divide",
}


@pytest.mark.parametrize(("name", "dtypes"), [(n, d) for d, names in TWO.items() for n in names.split()])
def test_of_two_arrays(name, dtypes):
    for dtype in dtypes:
        x, y = array(dtype), array(dtype, (3, 1))
        if dtype in UNSIGNED and name == "subtract":
            x = x + x.dtype.type(9)
        check(name, dtype, x, y)
        check(name, dtype, x, y[0, 0].reshape(()))


PAIRS = [(a, b) for group in (SIGNED, UNSIGNED, REAL, COMPLEX, REAL + COMPLEX) for a in group for b in group]
PAIRS += [(a, b) for a in SIGNED for b in UNSIGNED if b != "uint64"]


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_promotion(a, b):
    for x, y in ((array(a), array(b)), (array(a), array(b, ())), (array(b, ()), array(a))):  # those without dimensions count, too
        x, y = np.asarray(x), np.asarray(y)
        check("add", (a, b), x, y)
        check("where", (a, b), np.asarray(x.real > 1), x, y)
    check("concat", (a, b), (array(a), array(b)))
    check("stack", (a, b), [array(a), array(b)], axis=1)
    assert xp.result_type(ours(array(a)), getattr(xp, b)) is getattr(xp, np.result_type(a, b).name)
    assert xp.can_cast(getattr(xp, a), getattr(xp, b)) == (np.result_type(a, b).name == b)


def test_python_numbers():
    for dtype in ("int16", "float32", "complex64"):
        x = array(dtype)
        for name in "add subtract multiply equal".split():
            check(name, dtype, x, 3)
            check(name, dtype, 3, x)
    check("pow", "float32", np.abs(array("float32")), 2.5)
    check("maximum", "float64", array("float64"), 1.5)
    assert xp.result_type(xp.float32, 1.5) is xp.float32
    assert xp.result_type(xp.int8, 3) is xp.int8
    with pytest.raises(TypeError, match="expected arrays, dtypes and numbers"):
        xp.result_type("float32")
    with pytest.raises(ValueError, match="at least one"):
        xp.result_type(1)


def test_powers_shifts_and_integer_division():
    for dtype in INTEGRAL:
        x, y = np.abs(array(dtype)), np.abs(array(dtype, (4,))).astype(dtype) % np.asarray(3, dtype)
        for name in ("pow", "bitwise_left_shift", "bitwise_right_shift"):
            check(name, dtype, x, y)
        for name in ("floor_divide", "remainder"):
            check(name, dtype, array(dtype), y + np.asarray(1, dtype))
    check("pow", "float64", np.abs(array("float64")), array("float64"))


def test_clip():
    for dtype in INTEGRAL + REAL:
        x = array(dtype)
        low, high = np.asarray(2, dtype), np.full((4,), 3, dtype)
        for bounds in ((2, 3), (None, 3), (2, None), (low, high), (None, high)):
            check("clip", dtype, x, *bounds)
    x = ours(array("int32"))
    assert xp.clip(x) is not x
    assert xp.clip(x).tolist() == x.tolist()


AXES = (None, 0, -1, (0, 2), ())


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_reductions(axis, keepdims):
    for dtype in ALL:
        x = array(dtype)
        for name in "all any count_nonzero".split():
            if not (name == "count_nonzero" and axis == ()):
                check(name, dtype, x, axis=axis, keepdims=keepdims)
        if dtype == "bool":
            continue
        check("sum", dtype, x, axis=axis, keepdims=keepdims)
        check("prod", dtype, x[:1, :1], axis=axis, keepdims=keepdims)
        if dtype in INTEGRAL + REAL:
            for name in ("max", "min"):
                check(name, dtype, x, axis=axis, keepdims=keepdims)
        if dtype in REAL + COMPLEX:
            check("mean", dtype, x, axis=axis, keepdims=keepdims)
        if dtype in REAL and axis != ():
            for correction in (0.0, 1.0):
                for name in ("var", "std"):
                    got = getattr(xp, name)(ours(x), axis=axis, correction=correction, keepdims=keepdims)
                    same(got, getattr(x, name)(axis=axis, ddof=correction, keepdims=keepdims))


def test_reductions_with_a_dtype_and_of_nothing():
    check("sum", "", array("float32"), dtype=np.dtype("float64"))
    check("prod", "", array("int8"), dtype=np.dtype("float64"))
    for dtype in NUMERIC:
        for name in ("sum", "prod"):
            check(name, dtype, array(dtype, (0, 3)))
            check(name, dtype, array(dtype, (0, 3)), axis=0)
    assert (bool(xp.all(xp.zeros(0))), bool(xp.any(xp.zeros(0)))) == (True, False)


def test_cumulative():
    for dtype in NUMERIC:
        for name in ("cumulative_sum", "cumulative_prod"):
            check(name, dtype, array(dtype, (4,)))
            for include_initial in (False, True):
                check(name, dtype, array(dtype, (2, 3)), axis=1, include_initial=include_initial)
        check("diff", dtype, np.sort(array(dtype, (5,))) if dtype not in COMPLEX else array(dtype, (5,)))
    check("diff", "", array("float32"), axis=0, n=1, prepend=array("float32", (1, 3, 4)), append=array("float32", (2, 3, 4)))
    with pytest.raises(ValueError, match="an axis must be given"):
        xp.cumulative_sum(xp.ones((2, 2)))


def test_searching_and_sorting():
    for dtype in INTEGRAL + REAL:
        x = array(dtype, (3, 7))
        for name in ("argmax", "argmin"):
            for axis in (None, 0, -1):
                for keepdims in (False, True):
                    check(name, dtype, x, axis=axis, keepdims=keepdims)
        for axis in (0, -1):
            for descending in (False, True):
                order = np.argsort(np.flip(x, axis), axis=axis, stable=True)
                down = np.flip(x.shape[axis] - 1 - order, axis)  # stable from the top, too
                ordered = np.sort(x, axis)
                same(xp.sort(ours(x), axis=axis, descending=descending), np.flip(ordered, axis) if descending else ordered)
                same(xp.argsort(ours(x), axis=axis, descending=descending), down if descending else np.argsort(x, axis=axis, stable=True))
        check("searchsorted", dtype, np.sort(x[0]), x[1])
        check("searchsorted", dtype, x[0], x[1], side="right", sorter=np.argsort(x[0]))
    for dtype in ALL:
        check("nonzero", dtype, array(dtype, (3, 4)))


def test_isin():
    for dtype in INTEGRAL + REAL:
        x = array(dtype)
        for invert in (False, True):
            check("isin", dtype, x, x[0, 0], invert=invert)


def test_taking():
    for dtype in ALL:
        x = array(dtype, (3, 4))
        check("take", dtype, x, np.array([2, 0, -1]), axis=0)
        check("take", dtype, x[0], np.array([2, 0]))
        check("take_along_axis", dtype, x, np.array([[0, -1], [1, 1], [3, 0]]), axis=1)
        check("take_along_axis", dtype, x, np.array([[0], [1], [3]]))
    with pytest.raises(ValueError, match="an axis must be given"):
        xp.take(xp.ones((2, 2)), xp.asarray([0]))


def test_unique():
    for dtype in ALL:
        x = array(dtype, (5, 6))
        for name in ("unique_counts", "unique_inverse", "unique_all"):
            check(name, dtype, x)
            check(name, dtype, x[:0])
        same(xp.unique_values(ours(x)), np.unique(x))
    x = np.array([np.nan, 1, np.nan, 0.0, -0.0])
    check("unique_all", "NaN", x)


def test_shapes():
    x = array("float32")
    for call in (
        ("broadcast_to", x, (5, 2, 3, 4)), ("flip", x), ("matrix_transpose", x), ("roll", x, 5), ("tile", x, (2, 1)),
        ("tile", x, (2, 1, 1, 3)), ("permute_dims", x, (2, 0, 1)), ("moveaxis", x, 0, -1), ("moveaxis", x, (0, 1), (2, 0)),
        ("reshape", x, (4, -1)), ("squeeze", x[:1, :, :1], 0), ("repeat", x, 2), ("broadcast_arrays", x, x[:, :1], x[0]),
        ("meshgrid", x[0, 0], x[0, 1, :2]), ("concat", (x, x)), ("stack", (x, x)), ("unstack", x), ("tril", x), ("triu", x), ("diff", x),
    ):  # fmt: skip
        check(call[0], "", *call[1:])
    for name, options in (
        ("expand_dims", {"axis": 0}), ("expand_dims", {"axis": 1}), ("expand_dims", {"axis": -1}),
        ("flip", {"axis": 1}), ("flip", {"axis": (0, 2)}),
        ("unstack", {"axis": 1}), ("unstack", {"axis": -1}), ("tril", {"k": -1}), ("triu", {"k": 2}),
    ):  # fmt: skip
        check(name, "", x, **options)
    check("expand_dims", "", x, axis=(0, -1))
    assert xp.broadcast_shapes((2, 1), (3,)) == (2, 3)
    check("roll", "", x, (1, 2), axis=(0, 1))
    check("repeat", "", x, np.array([1, 2, 0]), axis=1)
    check("repeat", "", x, 3, axis=0)
    check("concat", "", (x, x), axis=None)
    check("concat", "", (x, x), axis=1)
    check("meshgrid", "", x[0, 0], x[0, 1, :2], indexing="ij")
    check("squeeze", "", x[:1, :, :1], (0, 2))
    for call in (
        lambda: xp.squeeze(ours(x), 0),
        lambda: xp.concat([ours(x), ours(x)[:0, 0]]),
        lambda: xp.reshape(ours(x).mT, (-1,), copy=False),
    ):
        with pytest.raises(ValueError):
            call()
    t = ours(x)
    assert xp.reshape(t, (-1,), copy=True).data_ptr() != t.data_ptr()
    assert xp.reshape(t, (-1,), copy=False).data_ptr() == t.data_ptr()


def test_creation():
    for name, args, options in (
        ("arange", (5,), {}), ("arange", (1, 2, 0.25), {}), ("arange", (5, 1, -2), {}), ("arange", (3, 3), {}), ("arange", (2, 1), {}),
        ("eye", (3,), {}), ("eye", (2, 4), {"k": 1}), ("eye", (3, 2), {"k": -1}), ("eye", (2, 2), {"k": 5}),
        ("zeros", (3,), {}), ("ones", ((2, 3),), {}), ("full", ((2,), 3), {}), ("full", (2, True), {}),
        ("linspace", (0, 1, 5), {}), ("linspace", (0, 1, 5), {"endpoint": False}), ("linspace", (1, -1, 1), {}),
        ("linspace", (1, -1, 0), {}),
    ):  # fmt: skip
        got, want = getattr(xp, name)(*args, **options), getattr(np, name)(*args, **options)
        wanted = want.astype("float32") if want.dtype == np.float64 else want  # the default type is float32 here
        same(got, wanted, name)
        same(getattr(xp, name)(*args, **options, dtype=xp.float64), want.astype("float64"), name)
    x = ours(array("int16"))
    for name in ("zeros_like", "ones_like", "empty_like"):
        assert getattr(xp, name)(x).dtype is xp.int16
        assert getattr(xp, name)(x, dtype=xp.float64).dtype is xp.float64
    assert xp.full_like(x, 7).tolist() == np.full((2, 3, 4), 7).tolist()
    assert xp.empty((2, 3)).shape == (2, 3)
    assert xp.full(2, 1.5).dtype is xp.float32
    assert xp.full(2, 1j).dtype is xp.complex64


def test_asarray_and_astype():
    x = xp.asarray([[1, 2], [3, 4]])
    assert (x.dtype, xp.asarray(1.5).dtype, xp.asarray([True]).dtype, xp.asarray(1j).dtype) == (xp.int64, xp.float32, xp.bool, xp.complex64)
    assert xp.asarray(x, copy=False).data_ptr() == xp.asarray(x).data_ptr() == x.data_ptr() != xp.asarray(x, copy=True).data_ptr()
    assert xp.astype(x, xp.int64).data_ptr() != x.data_ptr()
    assert xp.astype(x, xp.int64, copy=False) is x
    assert xp.astype(x, xp.float64).dtype is xp.float64
    assert xp.from_dlpack(np.arange(3)).tolist() == [0, 1, 2]
    assert xp.from_dlpack(x, copy=True).data_ptr() != x.data_ptr()


KINDS = {
    "bool": ("bool",), "signed integer": SIGNED, "unsigned integer": UNSIGNED, "integral": INTEGRAL, "real floating": REAL,
    "complex floating": COMPLEX, "numeric": NUMERIC,
}  # fmt: skip


def test_kinds_and_limits():
    for kind, names in KINDS.items():
        assert {d for d in ALL if xp.isdtype(getattr(xp, d), kind)} == set(names)
        assert set(xp.__array_namespace_info__().dtypes(kind=kind)) == set(names)
    assert xp.isdtype(xp.float32, ("bool", xp.float32))
    assert not xp.isdtype(xp.float32, xp.float64)
    with pytest.raises(ValueError, match="no kind 'float'"):
        xp.isdtype(xp.float32, "float")
    for name in REAL + COMPLEX:
        found, want = xp.finfo(getattr(xp, name)), np.finfo(name)
        for field in ("bits", "eps", "max", "min", "smallest_normal"):
            assert getattr(found, field) == getattr(want, field), field
        assert found.dtype is getattr(xp, want.dtype.name)
    for name in INTEGRAL:
        found, want = xp.iinfo(ours(array(name))), np.iinfo(name)
        assert (found.bits, found.max, found.min, found.dtype) == (want.bits, want.max, want.min, getattr(xp, name))
    info = xp.__array_namespace_info__()
    assert info.default_device() in info.devices()
    assert info.default_dtypes()["integral"] is xp.int64
    assert info.capabilities()["boolean indexing"] is True
    assert set(info.dtypes()) == set(ALL)
    assert set(info.dtypes(kind=("bool", "real floating"))) == {"bool", *REAL}


# --- extensions --------------------------------------------------------------------------------------------------------


def test_products():
    for dtype in NUMERIC:
        x, y = array(dtype, (2, 3, 4)), array(dtype, (4, 5))
        check("matmul", dtype, x, y)
        check("matmul", dtype, x, y[:, 0])
        check("tensordot", dtype, x, y, axes=1)
        check("tensordot", dtype, x, x, axes=((0, 2), (0, 2)))
        check("vecdot", dtype, x, x[:1])
        same(xp.vecdot(ours(x), ours(x), axis=0), np.vecdot(x, x, axis=0))
        same(xp.linalg.trace(ours(x), offset=1), np.linalg.trace(x, offset=1))
        same(xp.linalg.diagonal(ours(x), offset=1), np.linalg.diagonal(x, offset=1))
        check("linalg.outer", dtype, x[0, 0], y[:, 0])
        if dtype not in UNSIGNED:
            check("linalg.cross", dtype, x[:, :, 0], x[:, :, 1])
    check("matmul", "", array("float32", (2, 2)), array("float64", (2, 2)))
    for name in ("matmul", "tensordot", "vecdot", "matrix_transpose"):
        assert getattr(xp.linalg, name) is getattr(xp, name)


@pytest.mark.parametrize("dtype", REAL + COMPLEX)
def test_linear_algebra(dtype):
    x = array(dtype, (2, 4, 4)) + 8 * np.eye(4, dtype=dtype)
    hermitian = x @ x.swapaxes(-1, -2).conj()
    for name in "det inv svdvals slogdet matrix_norm vector_norm matrix_rank pinv".split():
        check(f"linalg.{name}", dtype, x)
    check("linalg.eigvalsh", dtype, hermitian)
    check("linalg.cholesky", dtype, hermitian)
    check("linalg.cholesky", dtype, hermitian, upper=True)
    check("linalg.matrix_power", dtype, x / 8, 3)
    check("linalg.matrix_power", dtype, x, -1)
    for ord in (1, -1, 2, -2, "nuc", np.inf):
        check("linalg.matrix_norm", dtype, x, ord=ord, keepdims=True)
        if ord != "nuc":
            check("linalg.vector_norm", dtype, x, ord=ord, axis=(0, 1))
    for b in (array(dtype, (4,)), array(dtype, (2, 4)), array(dtype, (4, 3)), array(dtype, (2, 4, 3))):
        if b.shape == (2, 4):
            continue  # of two rows: no system of four equations
        check("linalg.solve", dtype, x, b)
    check("linalg.solve", dtype, x[0], array(dtype, (5, 4, 3)))
    square = array(dtype, (4, 4))  # by its shape a batch of vectors, by the standard a matrix
    check("linalg.solve", dtype, np.stack([x[0]] * 4), square)
    values, vectors = xp.linalg.eigh(ours(hermitian))
    same(ours(hermitian) @ vectors, (vectors * values.unsqueeze(-2)).numpy())
    for full_matrices in (False, True):
        u, s, vh = xp.linalg.svd(ours(x[:, :, :2]), full_matrices=full_matrices)
        same((u[..., :2] * s.unsqueeze(-2)) @ vh, x[:, :, :2])
        assert u.shape[-1] == (4 if full_matrices else 2)
    for mode in ("reduced", "complete"):
        q, r = xp.linalg.qr(ours(x[:, :, :2]), mode=mode)
        same(q @ r, x[:, :, :2])
    for name, fields in {"eigh": "eigenvalues eigenvectors", "qr": "Q R", "svd": "U S Vh", "slogdet": "sign logabsdet"}.items():
        assert getattr(xp.linalg, name)(ours(hermitian))._fields == tuple(fields.split())


@pytest.mark.parametrize("dtype", REAL + COMPLEX)
def test_fourier_transforms(dtype):
    x = array(dtype, (3, 8))
    real = dtype in REAL
    for name in ("rfft", "ihfft") if real else ("fft", "ifft", "irfft", "hfft"):
        check(f"fft.{name}", dtype, x)
        check(f"fft.{name}", dtype, x, n=5, axis=0, norm="ortho")
    for name in ("rfftn",) if real else ("fftn", "ifftn", "irfftn"):
        check(f"fft.{name}", dtype, x, axes=(0, 1))
        check(f"fft.{name}", dtype, x, s=(4, 6), axes=(0, 1), norm="forward")
    for name in ("fftshift", "ifftshift"):
        check(f"fft.{name}", dtype, x)
        check(f"fft.{name}", dtype, x, axes=1)
    for name in ("fftfreq", "rfftfreq"):
        same(getattr(xp.fft, name)(7, d=0.5, dtype=xp.float64), getattr(np.fft, name)(7, d=0.5))


# --- the standard itself -----------------------------------------------------------------------------------------------


def test_the_namespace():
    assert xp.__array_api_version__ == "2024.12"
    assert torch.zeros(1).__array_namespace__(api_version="2023.12") is xp
    with pytest.raises(ValueError, match="not known"):
        torch.zeros(1).__array_namespace__(api_version="2030.01")
    assert [n for n in xp.__all__ if not hasattr(xp, n)] == []
    x = torch.ones(2)
    assert x.to_device("cpu") is x
    assert x.device == "cpu" or x.device == torch.device("cpu")
    assert torch.sum(torch.ones(2, 2), dim=0, keepdim=True).shape == (1, 2)  # PyTorch's meaning stays under our own names


def test_signatures_are_the_standards():
    strict = pytest.importorskip("array_api_strict")
    wrong = []
    for space, place in ((strict, xp), (strict.linalg, xp.linalg), (strict.fft, xp.fft)):
        for name in getattr(space, "__all__", dir(space)):
            theirs = getattr(space, name, None)
            if not inspect.isfunction(theirs) or name.startswith("_") or "flags" in name:
                continue
            mine = getattr(place, name, None)
            if mine is None:
                wrong.append(f"{name} is absent")
                continue
            want = [(p.name, p.kind) for p in inspect.signature(theirs).parameters.values()]
            got = [(p.name, p.kind) for p in inspect.signature(mine).parameters.values()]
            if got != want:
                wrong.append(f"{name}: {inspect.signature(mine)} for {inspect.signature(theirs)}")
    assert wrong == []


def test_gradients_pass_through():
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    xp.sum(xp.multiply(xp.concat([x, x], axis=1), 2.0), axis=(0, 1)).backward()
    assert x.grad.tolist() == [[4.0] * 3] * 2


def test_libraries_that_dispatch():
    compat = pytest.importorskip("array_api_compat")
    x = torch.ones(2)
    assert compat.array_namespace(x) is xp
    assert compat.is_array_api_obj(x)
    assert compat.device(x) == x.device
    assert compat.to_device(x, "cpu") is x


def test_scikit_learn_on_tensors():
    sklearn = pytest.importorskip("sklearn")
    from sklearn.metrics import mean_absolute_error, mean_squared_error
    from sklearn.preprocessing import StandardScaler

    x = torch.arange(20.0).reshape(10, 2) ** 2
    import os

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCIPY_ARRAY_API", os.environ.get("SCIPY_ARRAY_API", "1"))
        with sklearn.config_context(array_api_dispatch=True):
            scaled = StandardScaler().fit_transform(x)
            assert isinstance(scaled, torch.Tensor)
            assert float(mean_squared_error(x[:, 0], x[:, 1])) == pytest.approx(((x[:, 0] - x[:, 1]) ** 2).mean().item(), rel=1e-5)
            assert float(mean_absolute_error(x[:, 0], x[:, 1])) > 0
    np.testing.assert_allclose(scaled.numpy(), ((x - x.mean(0)) / x.std(0, correction=0)).numpy(), rtol=1e-4, atol=1e-5)
