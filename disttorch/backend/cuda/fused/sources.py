"""CUDA sources of traced formulas: one kernel that goes over many arrays at once, and one that computes the numbers which it takes.

Both take the addresses in a structure by value, as a part of the launch. So there is no table in memory that a captured graph could
read after it was freed, and nothing is copied to the device before a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...tracing import Node, Trace, statements, walk

__all__ = ["CHUNK", "THREADS", "kernel_source", "numbers_source", "rows_of_a_launch", "width"]

THREADS = 256
#: elements that a block does: large enough that finding its array does not count, small enough to spread over the device
CHUNK = 8192
#: bytes that a launch may take, on every version of CUDA
PARAMETERS = 4096
_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def rows_of_a_launch(words: int, others: int) -> int:
    """How many rows of so many words fit into a launch beside so many other arguments of 8 bytes."""
    return (PARAMETERS - 8 * others) // (8 * words)


def width(dtypes: Sequence[str]) -> tuple[str, int]:
    """The type that columns of these dtypes are computed in, and how many elements a thread takes at a time: 16 bytes of the narrowest."""
    real = "double" if "float64" in dtypes else "float"
    return real, 16 // min(_BYTES[d] for d in dtypes)


def kernel_source(trace: Trace, columns: Sequence[tuple[str, str] | None], from_memory: bool, found_inf: str, rows: int) -> str:
    """The kernel ``fused``, which applies a traced formula to the elements of many arrays.

    Parameters
    ----------
    trace : Trace
    columns : sequence of (str, str) or None
        Of each of the formula's arrays the element's name in the trace, and its dtype.
    from_memory : bool
        Whether the numbers that elements share come from an array, of which each row of arrays has a row, instead of by value.
    found_inf : str
        The dtype of the number that stops it.
    rows : int
        How many rows of arrays a launch has room for.

    Returns
    -------
    str
        Its parameters are the table, the number of rows, the shared numbers or their array with the distance of two rows, and a
        pointer to what stops it.
    """
    given = [(i, c) for i, c in enumerate(columns) if c is not None]
    real, at_once = width([dtype for _, (_, dtype) in given])
    reads = {i for i, (name, _) in given if name in trace.reads}
    writes = {i for i, _ in given if trace.outputs[i] is not None}
    count = len(trace.uniforms)

    names = {id(u): f"u{k}" + (" != 0" if u.is_bool else "") for k, u in enumerate(trace.uniforms)}
    of_elements = {name: f"x{i}" for i, (name, _) in given}
    for node in trace.elementwise:
        if node.operation == "element":
            names[id(node)] = of_elements[node.value]
    for key, text in names.items():
        names[key] = f"({text})" if " " in text else text
    body = statements(trace.elementwise, names, real)
    results = []
    for i in sorted(writes):
        output: Node = trace.outputs[i]  # type: ignore[assignment]
        body += statements([output], names, real) if output.operation == "constant" and id(output) not in names else []
        body.append(f"const real y{i} = {names[id(output)]};")
        results.append(f"x{i} = y{i};")  # after all were read
    parameters = [f"real {'&' if i in writes else ''}x{i}" for i, _ in given] + [f"real u{k}" for k in range(count)]

    used = sorted(reads | writes)
    dtype = {i: d for i, (_, d) in given}
    place = {i: n for n, (i, _) in enumerate(given)}
    arguments = ", ".join([*(f"x{i}" for i, _ in given), *(f"u{k}" for k in range(count))])

    def element(indent: str, where: Any) -> str:
        lines = [f"real x{i} = {f'wide({where(i)})' if i in reads else '0'};" for i, _ in given]
        lines.append(f"element({arguments});")
        lines += [f"{where(i)} = narrow<{dtype[i]}>(x{i});" for i in sorted(writes)]
        return "".join(f"{indent}{line}\n" for line in lines)

    if from_memory:
        numbers = "const real* numbers, long long stride, "
        loads = "".join(f"    const real u{k} = numbers[row * stride + {k}];\n" for k in range(count))
    else:
        numbers = "".join(f"double w{k}, " for k in range(count))
        loads = "".join(f"    const real u{k} = real(w{k});\n" for k in range(count))
    pointers = "".join(
        f"    {dtype[i]}* p{i} = reinterpret_cast<{dtype[i]}*>(table.word[{2 + place[i]} * ROWS + row]);\n" for i in used
    )
    are_aligned = " && ".join(f"aligned(p{i})" for i in used) or "true"
    loaded = "".join(
        f"        Row<{dtype[i]}> r{i}{f' = *reinterpret_cast<const Row<{dtype[i]}>*>(p{i} + at)' if i in reads else ''};\n" for i in used
    )
    stored = "".join(f"        *reinterpret_cast<Row<{dtype[i]}>*>(p{i} + at) = r{i};\n" for i in sorted(writes))
    return f"""
typedef {real} real;
#define ROWS {rows}
#define AT_ONCE {at_once}

// of each row of arrays the first block that does it, its size, and the addresses of its arrays
struct Table {{
    uint64 word[{2 + len(given)} * ROWS];
}};

template <typename T>
struct __align__(16) Row {{
    T at[AT_ONCE];
}};

__device__ __forceinline__ void element({", ".join(parameters)}) {{
{"".join(f"    {line}{chr(10)}" for line in [*body, *results])}}}

extern "C" __global__ void __launch_bounds__({THREADS}) fused(const Table table, long long rows, {numbers}const {found_inf}* found_inf) {{
    if (found_inf && wide(*found_inf) != 0) return;
    // the last row that begins at this block or before
    int row = 0, last = int(rows) - 1;
    while (row < last) {{
        int middle = (row + last + 1) / 2;
        if (table.word[middle] <= blockIdx.x)
            row = middle;
        else
            last = middle - 1;
    }}
    const int64 begin = int64(blockIdx.x - table.word[row]) * {CHUNK};
    const int64 size = int64(table.word[ROWS + row]);
    const int64 end = begin + {CHUNK} < size ? begin + {CHUNK} : size;
{loads}{pointers}    const int64 packs = {are_aligned} ? (end - begin) / AT_ONCE : 0;
    for (int64 pack = threadIdx.x; pack < packs; pack += {THREADS}) {{
        const int64 at = begin + pack * AT_ONCE;
{loaded}#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {{
{element("            ", lambda i: f"r{i}.at[i]")}        }}
{stored}    }}
#pragma unroll 1
    for (int64 at = begin + packs * AT_ONCE + threadIdx.x; at < end; at += {THREADS}) {{
{element("        ", lambda i: f"p{i}[at]")}    }}
}}
"""


def numbers_source(
    outputs: Sequence[Node], counters: dict[str, tuple[str, Node]], options: dict[str, str | None], real: str, found_inf: str, rows: int
) -> str:
    """The kernel ``numbers``, in which each thread computes, in double, the numbers of one row and counts its counters.

    Parameters
    ----------
    outputs : sequence of Node
        What it writes for a row, over numbers named by counters and options.
    counters : dict of str to (str, Node)
        By the name of a counter's number its dtype and new value.
    options : dict of str to str or None
        By the name of an option's number the dtype where it lies in memory, None where it comes by value.
    real : {"float", "double"}
        The type of what it writes.
    found_inf : str
        The dtype of the number that stops it.
    rows : int
        How many rows a launch has room for.

    Returns
    -------
    str
        Its parameters are the table of the counters' addresses (if there are any), the number of rows, the place of the first, the
        array to write to, the pointer to what stops it, and the options.
    """
    names: dict[int, str] = {}
    read = {name: f"double(wide(*c{i}))" for i, name in enumerate(counters)}
    read |= {name: f"o{i}" if dtype is None else f"double(wide(*o{i}))" for i, (name, dtype) in enumerate(options.items())}
    nodes = walk([*outputs, *(n for _, n in counters.values())])
    body = []
    for node in nodes:
        if node.operation == "number":
            names[id(node)] = f"n{len(names)}"
            body.append(f"const double {names[id(node)]} = {read[node.value]};")
    body += statements([n for n in nodes if n.operation != "number"], names, "double")
    for i, (dtype, new) in enumerate(counters.values()):
        narrowed = names[id(new)] if dtype == "float64" else f"float({names[id(new)]})"
        body.append(f"*c{i} = narrow<{dtype}>({narrowed});")
    body += [f"numbers[(first + row) * {len(outputs)} + {k}] = {real}({names[id(o)]});" for k, o in enumerate(outputs)]
    types = [dtype for dtype, _ in counters.values()]
    pointers = [f"{dtype}* c{i} = reinterpret_cast<{dtype}*>(table.word[{i} * ROWS + row]);" for i, dtype in enumerate(types)]
    given = "".join(f", {'double' if dtype is None else f'const {dtype}*'} o{i}" for i, dtype in enumerate(options.values()))
    table = f"struct Table {{\n    uint64 word[{len(counters)} * ROWS];\n}};\n" if counters else ""
    return f"""
#define ROWS {rows}
{table}
extern "C" __global__ void __launch_bounds__({THREADS}) numbers({"const Table table, " if counters else ""}long long rows, long long first,
                                                           {real}* numbers, const {found_inf}* found_inf{given}) {{
    if (found_inf && wide(*found_inf) != 0) return;
    const int64 row = global_thread();
    if (row >= rows) return;
{"".join(f"    {line}{chr(10)}" for line in [*pointers, *body])}}}
"""
