"""Linear algebra: values against NumPy and SciPy, derivatives against finite differences, what is refused."""

import numpy as np
import pytest
import scipy.linalg

import disttorch
from disttorch import linalg
from disttorch.autograd import gradcheck, gradgradcheck

RNG = np.random.default_rng(7)


def real(*shape):
    return RNG.normal(size=shape)


def complex_(*shape):
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def positive(*shape):
    a = real(*shape)
    return a @ a.swapaxes(-1, -2) + 0.5 * np.eye(shape[-1])


def tensors(arrays, requires_grad=False):
    return [disttorch.tensor(a, requires_grad=requires_grad and a.dtype.kind in "fc") for a in arrays]


def symmetric(x):
    return (x + x.mT) / 2


def hermitian(x):
    return x + x.mT.conj()


def as_real(x):
    """Complex results as two real ones: a loss is real."""
    return disttorch.view_as_real(x) if x.is_complex() else x


# name: (function of tensors, arrays). Each derivative is compared with finite differences, twice.
DIFFERENTIABLE = {
    "matmul": (disttorch.matmul, [real(2, 3, 4), real(4, 2)]),
    "matmul, vector": (disttorch.matmul, [real(2, 3, 4), real(4)]),
    "matmul, row": (disttorch.matmul, [real(3), real(2, 3, 2)]),
    "addmm": (lambda a, b, c: disttorch.addmm(a, b, c, beta=0.5, alpha=2), [real(4), real(3, 2), real(2, 4)]),
    "addbmm": (disttorch.addbmm, [real(3, 4), real(2, 3, 2), real(2, 2, 4)]),
    "baddbmm": (disttorch.baddbmm, [real(2, 3, 4), real(2, 3, 2), real(2, 2, 4)]),
    "addmv": (disttorch.addmv, [real(3), real(3, 2), real(2)]),
    "addr": (disttorch.addr, [real(3, 2), real(3), real(2)]),
    "kron": (disttorch.kron, [real(2, 3), real(3, 2)]),
    "tensordot": (lambda a, b: disttorch.tensordot(a, b, ([0, 2], [2, 1])), [real(2, 3, 4), real(3, 4, 2)]),
    "inner": (disttorch.inner, [real(2, 3), real(4, 3)]),
    "vecdot": (linalg.vecdot, [real(2, 3), real(2, 3)]),
    "multi_dot": (lambda *t: linalg.multi_dot(t), [real(2, 5), real(5, 3), real(3, 4), real(4)]),
    "cross": (linalg.cross, [real(2, 3), real(1, 3)]),
    "inv": (linalg.inv, [real(2, 3, 3)]),
    "solve": (linalg.solve, [real(2, 3, 3), real(3, 2)]),
    "solve, right": (lambda a, b: linalg.solve(a, b, left=False), [real(3, 3), real(2, 3)]),
    "solve, vector": (linalg.solve, [real(3, 3), real(3)]),
    "solve_triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=True), [real(3, 3) + 3 * np.eye(3), real(2, 3, 2)]),
    "solve_triangular, unit": (
        lambda a, b: linalg.solve_triangular(a, b, upper=False, left=False, unitriangular=True), [real(3, 3), real(2, 3)]
    ),
    "lu_solve": (lambda a, b: linalg.lu_solve(*linalg.lu_factor(a), b, adjoint=True), [real(3, 3), real(3, 2)]),
    "cholesky": (lambda a: linalg.cholesky(symmetric(a)), [positive(2, 3, 3)]),
    "cholesky, upper": (lambda a: linalg.cholesky(symmetric(a), upper=True), [positive(3, 3)]),
    "cholesky_solve": (lambda b, a: disttorch.cholesky_solve(b, a), [real(3, 2), np.tril(positive(3, 3))]),
    "cholesky_inverse": (disttorch.cholesky_inverse, [np.tril(positive(3, 3))]),
    "lu, square": (lambda a: linalg.lu(a)[1:], [real(2, 3, 3)]),
    "lu, wide": (lambda a: linalg.lu(a)[1:], [real(2, 4)]),
    "lu, tall": (lambda a: linalg.lu(a)[1:], [real(4, 2)]),
    "qr": (linalg.qr, [real(2, 4, 3)]),
    "qr, wide": (linalg.qr, [real(2, 4)]),
    "qr, complete": (lambda a: linalg.qr(a, "complete"), [real(3, 3)]),
    "householder_product": (linalg.householder_product, [real(4, 3), real(3)]),
    "ormqr": (lambda a, t, c: disttorch.ormqr(a, t, c, transpose=True), [real(4, 2), real(2), real(4, 3)]),
    "eigh": (lambda a: linalg.eigh(symmetric(a)).eigenvalues, [real(2, 3, 3)]),
    "eigh, vectors": (lambda a: linalg.eigh(symmetric(a)).eigenvectors ** 2, [real(3, 3)]),
    "eigvalsh": (lambda a: linalg.eigvalsh(symmetric(a)), [real(3, 3)]),
    "eigvals": (lambda a: as_real(linalg.eigvals(a)), [real(3, 3)]),
    "eig, vectors": (lambda a: linalg.eig(a).eigenvectors.abs(), [real(3, 3)]),
    "svd, values": (linalg.svdvals, [real(2, 3, 4)]),
    "svd, tall": (lambda a: [f**2 for f in linalg.svd(a, full_matrices=False)], [real(4, 2)]),
    "svd, wide": (lambda a: [f**2 for f in linalg.svd(a, full_matrices=False)], [real(2, 4)]),
    "det": (linalg.det, [real(2, 3, 3)]),
    "det, singular": (linalg.det, [np.diag([1.0, 2.0, 0.0])]),
    "slogdet": (lambda a: linalg.slogdet(a).logabsdet, [real(2, 3, 3)]),
    "logdet": (disttorch.logdet, [positive(3, 3)]),
    "pinv": (linalg.pinv, [real(2, 4, 3)]),
    "pinv, wide": (linalg.pinv, [real(2, 3)]),
    "lstsq": (lambda a, b: linalg.lstsq(a, b).solution, [real(2, 4, 3), real(2, 4, 2)]),
    "lstsq, wide": (lambda a, b: linalg.lstsq(a, b).solution, [real(2, 3), real(2, 2)]),
    "lstsq, residuals": (lambda a, b: linalg.lstsq(a, b, driver="gels").residuals, [real(4, 3), real(4, 2)]),
    "matrix_exp": (disttorch.matrix_exp, [real(2, 3, 3)]),
    "matrix_power": (lambda a: linalg.matrix_power(a, 3), [real(3, 3)]),
    "matrix_power, negative": (lambda a: linalg.matrix_power(a, -2), [real(3, 3)]),
    "tensorinv": (lambda a: linalg.tensorinv(a, 1), [real(4, 2, 2)]),
    "tensorsolve": (linalg.tensorsolve, [real(2, 3, 6), real(2, 3)]),
    **{f"vector_norm {p}": (lambda a, p=p: linalg.vector_norm(a, p, 1), [real(3, 4)]) for p in (1, 2, 3, 0.5, 2.5, np.inf, -np.inf)},
    **{f"matrix_norm {p}": (lambda a, p=p: linalg.matrix_norm(a, p), [real(2, 3, 4)]) for p in ("fro", "nuc", 1, -1, 2, -2, np.inf)},
    "cond": (linalg.cond, [real(3, 3)]),
    "renorm": (lambda a: disttorch.renorm(a, 2, 0, 1.0), [real(3, 4)]),
    "dist": (lambda a, b: disttorch.dist(a, b, 3), [real(3, 4), real(4)]),
    **{f"cdist {p}": (lambda a, b, p=p: disttorch.cdist(a, b, p), [real(2, 3, 4), real(5, 4)]) for p in (1.0, 2.0, 2.5, np.inf)},
    "cdist, by a product": (
        lambda a, b: disttorch.cdist(a, b, compute_mode="use_mm_for_euclid_dist"), [real(3, 4), real(5, 4)]
    ),
    "cov": (disttorch.cov, [real(3, 5)]),
    "corrcoef": (disttorch.corrcoef, [real(3, 5)]),
    "trace": (disttorch.trace, [real(3, 4)]),
    "vander": (lambda a: linalg.vander(a, N=4), [real(3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    function, arrays = DIFFERENTIABLE[name]
    given = tensors(arrays, requires_grad=True)

    def whole(*t):
        result = function(*t)
        return tuple(result) if isinstance(result, (tuple, list)) else result

    assert gradcheck(whole, given)
    # finite differences of a gradient that itself is of a decomposition are less exact
    assert gradgradcheck(whole, given, atol=1e-4)


# Complex functions of complex matrices, as the real parts of what comes in and out.
COMPLEX = {
    "inv": (linalg.inv, [complex_(3, 3)]),
    "solve": (linalg.solve, [complex_(3, 3), complex_(3, 2)]),
    "solve_triangular": (lambda a, b: linalg.solve_triangular(a, b, upper=False), [complex_(3, 3) + 3 * np.eye(3), complex_(3, 2)]),
    "cholesky": (lambda a: linalg.cholesky(a @ a.mT.conj() + disttorch.eye(3)), [complex_(3, 3)]),
    "lu": (lambda a: linalg.lu(a).U, [complex_(3, 3)]),
    "qr": (lambda a: linalg.qr(a).R, [complex_(4, 3)]),
    "det": (linalg.det, [complex_(3, 3)]),
    "slogdet": (lambda a: linalg.slogdet(a).sign, [complex_(3, 3)]),
    "eigvalsh": (lambda a: linalg.eigvalsh(hermitian(a)), [complex_(3, 3)]),
    "eigvals": (linalg.eigvals, [complex_(3, 3)]),
    "projector": (lambda a: (lambda v: v[:, :1] @ v[:, :1].mT.conj())(linalg.eigh(hermitian(a)).eigenvectors), [complex_(3, 3)]),
    "svd": (lambda a: (lambda u, s, vh: u[:, :1] @ vh[:1])(*linalg.svd(a, full_matrices=False)), [complex_(4, 3)]),
    "pinv": (linalg.pinv, [complex_(4, 3)]),
    "matrix_exp": (disttorch.matrix_exp, [complex_(3, 3)]),
    "householder_product": (linalg.householder_product, [complex_(4, 3), complex_(3)]),
    "norm 1": (lambda a: linalg.vector_norm(a, 1), [complex_(3)]),
    "norm 3": (lambda a: linalg.vector_norm(a, 3), [complex_(3)]),
    "vdot": (disttorch.vdot, [complex_(3), complex_(3)]),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_derivatives(name):
    function, arrays = COMPLEX[name]
    parts = tensors([np.stack((a.real, a.imag), -1) for a in arrays], requires_grad=True)

    def of_parts(*t):
        return as_real(function(*(disttorch.view_as_complex(x) for x in t)))

    assert gradcheck(of_parts, parts)
    assert gradgradcheck(of_parts, parts, atol=1e-4)


def close(ours, expected, tolerance=1e-10):
    assert tuple(ours.shape) == np.shape(expected)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=tolerance, atol=tolerance)


A, B, H, V = real(5, 5), real(5, 3), positive(5, 5), real(5)
VALUES = {
    "inv": (linalg.inv, [A], np.linalg.inv(A)),
    "solve": (linalg.solve, [A, B], np.linalg.solve(A, B)),
    "det": (linalg.det, [A], np.linalg.det(A)),
    "logdet": (disttorch.logdet, [H], np.log(np.linalg.det(H))),
    "pinv": (linalg.pinv, [B], scipy.linalg.pinv(B)),
    "lstsq": (lambda a, b: linalg.lstsq(a, b).solution, [B, A], scipy.linalg.lstsq(B, A)[0]),
    "cholesky": (linalg.cholesky, [H], scipy.linalg.cholesky(H, lower=True)),
    "cholesky_solve": (disttorch.cholesky_solve, [B, np.linalg.cholesky(H)], np.linalg.solve(H, B)),
    "cholesky_inverse": (disttorch.cholesky_inverse, [np.linalg.cholesky(H)], np.linalg.inv(H)),
    "matrix_exp": (disttorch.matrix_exp, [A], scipy.linalg.expm(A)),
    "matrix_power": (lambda a: linalg.matrix_power(a, -3), [A], np.linalg.matrix_power(A, -3)),
    "kron": (disttorch.kron, [A, B], np.kron(A, B)),
    "cross": (linalg.cross, [B, B[::-1].copy()], np.cross(B, B[::-1])),
    "outer": (disttorch.outer, [V, V], np.outer(V, V)),
    "cov": (disttorch.cov, [A], np.cov(A)),
    "corrcoef": (disttorch.corrcoef, [A], np.corrcoef(A)),
    "svdvals": (linalg.svdvals, [B], scipy.linalg.svdvals(B)),
    "eigvalsh": (linalg.eigvalsh, [H], scipy.linalg.eigvalsh(H)),
    "cdist": (disttorch.cdist, [A, A + 1], np.sqrt(((A[:, None] - A - 1) ** 2).sum(-1))),
    "cdist 1": (lambda a, b: disttorch.cdist(a, b, 1.0), [A, A + 1], np.abs(A[:, None] - A - 1).sum(-1)),
    "vander": (linalg.vander, [V], np.vander(V, increasing=True)),
    "tensorinv": (lambda a: linalg.tensorinv(a), [A.reshape(5, 1, 5)], np.linalg.tensorinv(A.reshape(5, 1, 5))),
    **{f"norm {p}": (lambda a, p=p: linalg.norm(a, p), [B], np.linalg.norm(B, p)) for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)},
    **{f"vector {p}": (lambda a, p=p: linalg.norm(a, p), [V], np.linalg.norm(V, p)) for p in (0, 1, 2, 3, -2, 0.5, np.inf, -np.inf)},
    **{f"cond {p}": (lambda a, p=p: linalg.cond(a, p), [A], np.linalg.cond(A, p)) for p in (None, "fro", 1, -2, np.inf)},
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values(name):
    function, arrays, expected = VALUES[name]
    close(function(*tensors(arrays)), expected)


@pytest.mark.parametrize("make", [real, complex_])
@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 5, 3), (2, 3, 5), (0, 2, 2), (2, 0, 3)])
def test_factors_multiply_to_the_matrix(make, shape):
    (a,) = tensors([make(*shape)])

    def adjoint(x):
        return x.mT.conj()

    def same(product, what=a):
        close(product, what.numpy())

    k = min(shape[-2:])
    eye = np.broadcast_to(np.eye(k), (shape[0], k, k))
    p, lower, upper = linalg.lu(a)
    same(p @ lower @ upper)
    same(disttorch.lu_unpack(*linalg.lu_factor(a))[0] @ lower @ upper)
    q, r = linalg.qr(a)
    same(q @ r)
    close(adjoint(q) @ q, eye)
    close(disttorch.linalg.householder_product(*disttorch.geqrf(a))[..., :k] if shape[1] >= shape[2] else q, q.numpy())
    u, s, vh = linalg.svd(a, full_matrices=False)
    same((u * s.unsqueeze(-2)) @ vh)
    close(adjoint(u) @ u, eye)
    whole_u, _, whole_vh = linalg.svd(a)
    assert whole_u.shape[-1] == shape[1] and whole_vh.shape[-2] == shape[2]
    if shape[1] == shape[2]:
        values, vectors = linalg.eig(a)
        same(a.to(vectors.dtype) @ vectors, vectors * values.unsqueeze(-2))
        h = a + adjoint(a)
        values, vectors = linalg.eigh(h)
        same(h @ vectors, vectors * values.unsqueeze(-2))
        for hermitian_ in (False, True):
            m = h if hermitian_ else a + a.mT
            b = a[..., :1]
            same(m @ linalg.ldl_solve(*linalg.ldl_factor(m, hermitian=hermitian_), b, hermitian=hermitian_), b)


def test_names_of_results():
    a = disttorch.eye(2)
    fields = {
        linalg.eigh: "eigenvalues eigenvectors", linalg.eig: "eigenvalues eigenvectors", linalg.svd: "U S Vh",
        disttorch.svd: "U S V", linalg.qr: "Q R", linalg.lu: "P L U", linalg.lu_factor: "LU pivots",
        linalg.slogdet: "sign logabsdet", linalg.cholesky_ex: "L info", linalg.inv_ex: "inverse info", disttorch.geqrf: "a tau",
        linalg.ldl_factor: "LD pivots", linalg.lu_factor_ex: "LU pivots info",
    }  # fmt: skip
    for function, names in fields.items():
        assert function(a)._fields == tuple(names.split())
    assert linalg.lstsq(a, a)._fields == ("solution", "residuals", "rank", "singular_values")
    out = disttorch.empty(2), disttorch.empty(2, 2)
    assert linalg.eigh(a, out=out).eigenvalues is out[0] and out[0].tolist() == [1.0, 1.0]


SINGULAR = np.stack([np.eye(3), np.diag([1.0, 0.0, 2.0])])
REFUSED = [
    (lambda: linalg.inv(disttorch.tensor(SINGULAR)), linalg.LinAlgError, r"Batch element 1.*diagonal element 2 is zero"),
    (lambda: linalg.inv(disttorch.zeros(2, 2)), linalg.LinAlgError, r"inv: The diagonal element 1 is zero"),
    (lambda: linalg.solve(disttorch.tensor(SINGULAR), disttorch.ones(3, 1).double()), linalg.LinAlgError, r"Batch element 1"),
    (lambda: linalg.cholesky(-disttorch.eye(2)), linalg.LinAlgError, r"leading minor of order 1"),
    (lambda: linalg.cholesky(disttorch.tensor([[[1.0, 0], [0, 1]], [[1, 2], [2, 1]]])), linalg.LinAlgError, r"element 1.*order 2"),
    (lambda: linalg.eigh(disttorch.full((2, 2), float("nan"))), linalg.LinAlgError, r"non-finite"),
    (lambda: linalg.svd(disttorch.full((2, 2), float("inf"))), linalg.LinAlgError, r"non-finite"),
    (lambda: linalg.inv(disttorch.ones(2, 3)), RuntimeError, r"square.*2 by 3"),
    (lambda: linalg.inv(disttorch.ones(2)), RuntimeError, r"at least 2 dimensions.*\[2\]"),
    (lambda: linalg.det(disttorch.ones(2, 2).half()), RuntimeError, r"Low precision.*float16"),
    (lambda: linalg.inv(disttorch.ones(2, 2, dtype=disttorch.int64)), RuntimeError, r"floating point.*int64"),
    (lambda: linalg.solve(disttorch.eye(2), disttorch.ones(3, 1)), RuntimeError, r"2x2 and 3x1"),
    (lambda: linalg.solve(disttorch.eye(2), disttorch.ones(2, 1).double()), RuntimeError, r"float32.*float64"),
    (lambda: linalg.multi_dot([disttorch.eye(2)]), RuntimeError, r"at least 2 tensors"),
    (lambda: linalg.vector_norm(disttorch.ones(2, 0), float("inf"), 1), RuntimeError, r"\[2, 0\]"),
    (lambda: linalg.matrix_norm(disttorch.eye(2), 3), RuntimeError, r"Order 3"),
    (lambda: disttorch.mm(disttorch.eye(2), disttorch.ones(3, 2)), RuntimeError, r"2x2 and 3x2"),
    (lambda: disttorch.mm(1, disttorch.ones(3, 2)), TypeError, r"int"),
    (lambda: linalg.qr(disttorch.eye(2), "raw"), RuntimeError, r"raw"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refused(case):
    call, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        call()


def test_info_instead_of_errors():
    a = disttorch.tensor(SINGULAR)
    assert linalg.inv_ex(a).info.tolist() == [0, 2] and linalg.lu_factor_ex(a).info.tolist() == [0, 2]
    inverse, info = linalg.inv_ex(a)
    assert info.dtype is disttorch.int32 and inverse[0].tolist() == np.eye(3).tolist()
    assert linalg.cholesky_ex(a - 0.5 * disttorch.eye(3)).info.tolist() == [0, 2]
    assert linalg.solve_ex(a, a).result[0].tolist() == np.eye(3).tolist()
    with pytest.raises(linalg.LinAlgError, match="Batch element 1"):
        linalg.inv_ex(a, check_errors=True)


def test_gradient_that_depends_on_a_phase_is_refused():
    a = disttorch.tensor(complex_(3, 3), requires_grad=True)
    for vectors in (linalg.eigh(hermitian(a)).eigenvectors, linalg.svd(a).U):
        with pytest.raises(RuntimeError, match="ill-defined"):
            as_real(vectors).sum().backward()


def test_singular_values_alone_have_a_gradient_where_they_are_equal():
    a = disttorch.eye(3, requires_grad=True)
    linalg.svd(a).S.sum().backward()
    close(a.grad, np.eye(3))
    b = disttorch.eye(3, requires_grad=True)
    linalg.eigh(b).eigenvalues.sum().backward()
    close(b.grad, np.eye(3))


def test_subgradient_of_a_norm_at_zero():
    for p in (1, 2, 3, 0.5, float("inf")):
        x = disttorch.zeros(3, requires_grad=True)
        linalg.vector_norm(x, p).backward()
        assert x.grad.tolist() == [0.0, 0.0, 0.0]


def test_a_result_that_was_changed_is_noticed():
    a = disttorch.tensor(H, requires_grad=True)
    values, vectors = linalg.eigh(a)
    vectors.detach().zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        values.sum().backward()


def test_low_rank():
    a = disttorch.tensor(real(20, 3) @ real(3, 12))
    u, s, v = disttorch.svd_lowrank(a, 4)
    close((u * s) @ v.mT, a.numpy())
    u, s, v = disttorch.pca_lowrank(a, 4)
    close((u * s) @ v.mT, a.numpy() - a.numpy().mean(0))
    assert u.shape == (20, 4) and s.shape == (4,) and v.shape == (12, 4)


def test_without_beta_the_input_does_not_count():
    nan = disttorch.full((2, 2), float("nan"))
    one = disttorch.ones(2, 2)
    assert disttorch.addmm(nan, one, one, beta=0).tolist() == [[2.0, 2.0], [2.0, 2.0]]
    x = one.clone()
    assert x.addmm_(one, one, alpha=2) is x and x.tolist() == [[5.0, 5.0], [5.0, 5.0]]
