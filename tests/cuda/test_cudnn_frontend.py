"""Our graphs, built with the real package nvidia-cudnn-frontend: that it takes every name and argument, and infers the shapes that we say.

The package needs neither a GPU nor cuDNN to build a graph; what its engines say of it is asked in tests/gpu.
"""

import sys
from importlib import import_module
from importlib.util import find_spec

import ml_dtypes
import numpy as np
import pytest

from tests import stand_in
from tests.stand_in import host_cuda

if find_spec("cudnn") is None:
    pytest.skip("the package nvidia-cudnn-frontend is not installed", allow_module_level=True)
REAL = import_module("cudnn")
if not isinstance(REAL.pygraph, type) or not hasattr(REAL, "GraphContext"):
    pytest.skip("before version 1.28 nvidia-cudnn-frontend builds no graph without cuDNN", allow_module_level=True)
pytestmark = pytest.mark.skipif(host_cuda.available() is not None, reason=str(host_cuda.available()))


@pytest.fixture
def build(monkeypatch):
    """Runs a kernel; returns the graphs that it built, and the arrays of each by their numbers in it."""
    with stand_in.installed() as cupy:
        package = "disttorch.backend.cuda.cudnn"
        for name in [name for name in sys.modules if name.startswith("disttorch.backend.cuda")]:
            monkeypatch.delitem(sys.modules, name)
        import_module(package)
        library, plans = import_module(f"{package}.library"), import_module(f"{package}.plans")
        monkeypatch.setattr(library, "cudnn", lambda: REAL)
        built = []

        def run(key, make, arrays, exact=False):
            hash(key)
            built.append((make(REAL, None), arrays))
            raise plans.Unsupported

        def call(name, *arguments):
            module = import_module(f"{package}.{'attention' if 'attention' in name else 'convolution'}")
            monkeypatch.setattr(module, "run", run)
            monkeypatch.setattr(module, "usable", lambda: True)
            getattr(module, name)(*arguments)
            return built

        call.cupy = cupy
        yield call


def check(built, operation):
    graph, arrays = built[-1]
    (node,) = graph.nodes
    assert node.node_type.name == operation
    tensors = [*node.inputs.values(), *node.outputs.values()]
    assert sorted(t.uid for t in tensors) == sorted(arrays)
    for t in tensors:
        assert not t.is_virtual
        assert int(np.prod(t.dim)) == arrays[t.uid].size
        assert t.get_data_type().name == {"e": "HALF", "f": "FLOAT", "d": "DOUBLE"}.get(arrays[t.uid].dtype.char, "BFLOAT16")
    for t in node.outputs.values():
        said = list(t.dim)
        object.__setattr__(t, "dim", None)
        node.infer_properties(graph.context)
        assert t.dim is None or list(t.dim) == said
        object.__setattr__(t, "dim", said)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32", "float64"], ids=str)
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolution(build, dtype, spatial):
    cupy, window = build.cupy, ((2,) * spatial, (1,) * spatial, (1,) * spatial, 2)
    x, w = cupy.ones((2, 4, *(5,) * spatial), dtype), cupy.ones((6, 2, *(3,) * spatial), dtype)
    g = cupy.ones((2, 6, *(3,) * spatial), dtype)
    check(build("convolution", x, w, *window), "CONV_FPROP")
    check(build("convolution_input", g, w, x.shape, *window), "CONV_DGRAD")
    check(build("convolution_weight", g, x, w.shape, *window), "CONV_WGRAD")


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("case", ["plain", "causal", "mask"])
def test_attention(build, dtype, case):
    cupy = build.cupy
    q, k, v = (cupy.ones((2, 3, n, 8), dtype) for n in (5, 7, 7))
    mask = cupy.ones((2, 1, 5, 7), bool) if case == "mask" else None
    check(build("attention", q, k, v, mask, case == "causal", 0.5, 0.0, 0), "SDPA")
    lse = cupy.ones((2, 3, 5, 1), "f")
    check(build("attention_backward", q, q, k, v, mask, q, lse, case == "causal", 0.5, 0.0, 0, False), "SDPA_BWD")


def test_names_that_are_used(build):
    for enumeration, members in {
        "data_type": "HALF BFLOAT16 FLOAT DOUBLE", "heur_mode": "A FALLBACK", "diagonal_alignment": "TOP_LEFT",
        "numerical_note": "TENSOR_CORE DOWN_CONVERT_INPUTS NONDETERMINISTIC",
    }.items():  # fmt: skip
        assert all(hasattr(getattr(REAL, enumeration), member) for member in members.split())
    for name in ("create_handle", "set_stream", "backend_version", "cudnnGraphNotSupportedError"):
        assert hasattr(REAL, name)
    for name in (
        "validate", "build_operation_graph", "create_execution_plans", "deselect_numeric_notes", "get_execution_plan_count",
        "get_engine_and_knobs_at_index", "build_plan_at_index", "get_workspace_size_plan_at_index", "execute_plan_at_index",
    ):  # fmt: skip
        assert hasattr(REAL.pygraph, name)
