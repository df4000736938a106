"""Formulas run on symbols: what comes out, against the same formulas on NumPy's arrays, and what cannot be traced."""

import ctypes
import math
import shutil
import subprocess

import numpy as np
import pytest

from disttorch.backend import cpu
from disttorch.backend.tracing import Graph, Untraceable, statements, traced
from disttorch.backend.tracing.symbols import Symbolic, evaluated, python

SPECIAL = np.array([-2.5, -1.0, -0.0, 0.0, 0.3, 1.0, 2.0, 40.0, np.inf, -np.inf, np.nan])
A, B = (x.ravel() for x in np.meshgrid(SPECIAL, SPECIAL))

FORMULAS = {
    "operators": lambda xp, a, b, c: (a + b * c - 2 / b, -a / (c - b)),
    "powers": lambda xp, a, b, c: (a**2 + a**3 * c**2, a**-2 + abs(b) ** 0.5 + 2.0**b),
    "comparisons": lambda xp, a, b, c: (xp.where(a < b, a, c) + xp.where((a >= b) & (a != c), 1.0, 0.0), xp.where(~(a == b), b, 7.0)),
    "largest and smallest": lambda xp, a, b, c: (xp.maximum(a, b) - xp.minimum(a, c), xp.clip(a, -1.0, c)),
    "signs": lambda xp, a, b, c: (xp.sign(a) * xp.abs(b), xp.copysign(a, b)),
    "roots and logarithms": lambda xp, a, b, c: (xp.sqrt(a) + xp.cbrt(b), xp.log(a) + xp.log1p(b) + xp.log2(a)),
    "exponentials": lambda xp, a, b, c: (xp.exp(a) + xp.expm1(b), xp.tanh(a) + xp.exp2(b)),
    "circles": lambda xp, a, b, c: (xp.sin(a) + xp.cos(b), xp.arctan2(a, b) + xp.hypot(a, b)),
    "whole numbers": lambda xp, a, b, c: (xp.floor(a) + xp.ceil(b), xp.trunc(a) + xp.rint(b)),
    "tests": lambda xp, a, b, c: (xp.where(xp.isnan(a), 1.0, b), xp.where(xp.isfinite(a), 1.0, 0.0) + xp.where(xp.isinf(b), 2.0, 0.0)),
    "functions": lambda xp, a, b, c: (xp.add(xp.square(a), xp.divide(b, c)), xp.where(xp.logical_or(a > 0, b > 0), xp.negative(a), b)),
    "constants": lambda xp, a, b, c: (xp.zeros_like(a) + c, xp.ones_like(a)),
    "infinity": lambda xp, a, b, c: (xp.minimum(a, math.inf), xp.where(a > 0, -math.inf, b)),
}


def on_host(formula, dtype, c, folder):
    """The formula compiled from its C, on the columns."""
    trace = traced(formula, ["a", "b"], ["c"], {})
    real = "float" if dtype == np.float32 else "double"
    names = {id(u): f"u[{k}]" + (" != 0" if u.is_bool else "") for k, u in enumerate(trace.uniforms)}
    names |= {id(n): f"{n.value}[i]" for n in trace.elementwise if n.operation == "element"}
    lines = statements(trace.elementwise, names, real)
    for column, output in zip("ab", trace.outputs):
        lines += statements([output], names, real) if id(output) not in names else []
        lines.append(f"const {real} new_{column} = {names[id(output)]};")
    lines += [f"{column}[i] = new_{column};" for column in "ab"]
    source = folder / "formula.cpp"
    source.write_text(
        f'#include <math.h>\nextern "C" void run({real}* a, {real}* b, const {real}* u, int n) {{\nfor (int i = 0; i < n; ++i) {{\n'
        + "\n".join(lines) + "\n}\n}\n"
    )  # fmt: skip
    library = folder / "formula.so"
    subprocess.run(["g++", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-o", str(library), str(source)], check=True)
    columns = [np.array(x, dtype) for x in (A, B)]
    uniforms = np.array(evaluated(trace.uniforms, {"c": c}) or [0.0], dtype)
    ctypes.CDLL(str(library)).run(*(ctypes.c_void_p(x.ctypes.data) for x in (*columns, uniforms)), len(A))
    return columns


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to compile C with")
@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_emitted_c_is_the_formula(name, dtype, tmp_path):
    found = on_host(FORMULAS[name], dtype, 1.75, tmp_path)
    expected = FORMULAS[name](cpu, A.astype(dtype), B.astype(dtype), 1.75)
    for ours, numpys in zip(found, expected):
        unit = 1e-6 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(ours, np.broadcast_to(numpys, ours.shape), rtol=unit, atol=unit)


def test_an_expression_is_computed_once():
    trace = traced(lambda xp, a, b: (xp.sqrt(a * b) + 1, xp.sqrt(a * b) * xp.sqrt(a * b)), ["a", "b"], [], {})
    operations = [n.operation for n in trace.elementwise]
    assert operations.count("sqrt") == 1
    assert operations.count("mul") == 2


def test_what_all_elements_share_is_taken_out():
    trace = traced(lambda xp, a, *, lr, beta: (a * (1 - beta**2) - lr / (1 - beta), ), ["a"], ["lr", "beta"], {})  # fmt: skip
    values = evaluated(trace.uniforms, {"lr": 0.5, "beta": 0.9})
    assert sorted(values) == pytest.approx(sorted([1 - 0.81, 0.5 / 0.1]))
    assert [n.operation for n in trace.elementwise] == ["element", "mul", "sub"]


def test_columns_that_stay_and_columns_that_are_only_written():
    trace = traced(lambda xp, a, b, c: (a, xp.zeros_like(b), a * 2), ["a", "b", "c"], [], {})
    assert [o is not None for o in trace.outputs] == [False, True, True]
    assert trace.reads == {"a"}
    none = traced(lambda xp, a, b: (a + 1, b), ["a", None], [], {})
    assert none.outputs[1] is None


def test_choices_make_traces():
    def formula(xp, a, *, nesterov):
        return (a * 2 if nesterov else a + 1,)

    assert [n.operation for n in traced(formula, ["a"], [], {"nesterov": True}).elementwise] == ["element", "mul"]
    assert [n.operation for n in traced(formula, ["a"], [], {"nesterov": False}).elementwise] == ["element", "add"]


UNTRACEABLE = {
    "its course depends on a value": lambda xp, a: (a if a > 0 else -a,),
    "it asks for a value": lambda xp, a: (a * float(a),),
    "it calls sum": lambda xp, a: (a / xp.sum(a),),
    "it asks an array for its shape": lambda xp, a: (a * a.shape[0],),
    "it is not elementwise": lambda xp, a: (a[0] * a,),
    "a ndarray among the numbers": lambda xp, a: (a + np.ones(3),),
}


@pytest.mark.parametrize("reason", UNTRACEABLE)
def test_what_cannot_be_traced(reason):
    with pytest.raises(Untraceable, match=reason):
        traced(UNTRACEABLE[reason], ["a"], [], {})


def test_numbers_are_what_c_gives_also_where_python_raises():
    graph = Graph()
    x, zero = graph.number("x"), graph.number("zero")
    nodes = [x / zero, -x / zero, zero / zero, (0 - x) ** 0.5, x**zero, (x * 1e3) ** (x * 1e3), zero ** (0 - x), Symbolic(graph).log(zero)]
    found = evaluated(nodes, {"x": 2.0, "zero": 0.0})
    np.testing.assert_array_equal(found, [math.inf, -math.inf, math.nan, math.nan, 1.0, math.inf, math.inf, -math.inf])


def test_numbers_of_one_trace_in_anothers():
    inner = Graph()
    node = (inner.number("lr") + 1) * inner.number("lr")
    outer = Graph()
    (moved,) = evaluated([node], {"lr": outer.number("rate") / 2}, into=outer)
    assert moved.graph is outer
    assert evaluated([moved], {"rate": 6.0}) == [12.0]
    assert evaluated([node], {"lr": 3.0}) == [12.0]


def test_the_hosts_functions():
    assert python.where(True, 1, 2) == 1
    assert python.maximum(1.0, 2.0) == 2.0
    assert python.single(0.1) == float(np.float32(0.1))
