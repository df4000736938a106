"""Writes the README's table of what was measured on a GPU, from the newest docs/results/gpu-*.json.

    python docs/gpu_table.py            # writes it
    python docs/gpu_table.py --check    # exit code 1 if it is not what would be written

benchmarks/gpu.py makes those files. What the newest of them does not have is listed as not measured in it; where there is none,
everything.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE / "results"
BEGIN, END = "<!-- written by docs/gpu_table.py: begin -->", "<!-- end -->"

#: What benchmarks/gpu.py measures: the name of its result, and how it is called where it has not been run.
LINES = {
    "gpt2": "GPT-2 124M",
    "resnet50": "ResNet-50",
    "mlp": "a small MLP, eager and captured",
    "lstm": "an LSTM",
    "adamw": "AdamW on 1,000,000,000 parameters",
    "launch": "the cost of a tiny operation",
    "launch with gradient": "the same, recorded for gradients",
    "product": "a large product in bfloat16",
    "copy": "a copy of memory",
}
#: The columns of times in a result, as the table names them.
COLUMNS = {
    "disttorch eager": "disttorch",
    "disttorch captured": "captured",
    "PyTorch eager": "PyTorch",
    "torch.compile": "torch.compile",
}


def newest(folder: Path = RESULTS) -> Path | None:
    """The file of the latest day; of several of one day that of the latest name."""
    files = sorted(folder.glob("gpu-*.json"), key=lambda path: (json.loads(path.read_text())["date"], path.name))
    return files[-1] if files else None


def time_of(seconds: float | None) -> str:
    """Seconds with three digits, in the unit that suits."""
    if seconds is None:
        return ""
    units = (("s", 1.0), ("ms", 1e3), ("us", 1e6))
    unit, factor = next((u for u in units if seconds * u[1] >= 1), units[-1])
    return f"{digits(seconds * factor)} {unit}"


def digits(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(ours: float | None, theirs: float | None) -> str:
    """How many times as fast we are."""
    return f"{theirs / ours:.2f}" if ours and theirs else ""


def rate(result: dict[str, Any], peak: dict[str, float] | None) -> str:
    """What our fastest way comes to: units a second, and the share of the card's peak."""
    times = [t for column, t in result["seconds_a_step"].items() if column.startswith("disttorch")]
    if not times:
        return ""
    about, best = result["a_step"], min(times)
    parts = [f"{about['count'] / best:,.0f} {result['unit']}"] if about["count"] > 1 else []
    if peak and about.get("flops"):
        parts.append(f"{about['flops'] / best / peak['tflops'] / 1e10:.0f}% of {peak['tflops']:,.0f} TFLOP/s")
    if peak and about.get("bytes"):
        parts.append(f"{about['bytes'] / best / peak['tb_per_s'] / 1e10:.0f}% of {peak['tb_per_s']:g} TB/s")
    return ", ".join(parts)


def memory(result: dict[str, Any]) -> str:
    """Peak memory of an eager step, ours / PyTorch's."""
    found = result.get("peak_memory", {})
    both = [found.get("disttorch eager"), found.get("PyTorch eager")]
    return " / ".join(f"{b / 2**30:.1f}" for b in both) if all(both) else ""


def row(result: dict[str, Any], peak: dict[str, float] | None) -> str:
    measured = result["seconds_a_step"]
    times = {column: measured.get(column) for column in COLUMNS}
    times["torch.compile"] = min((t for column, t in measured.items() if column.startswith("torch.compile")), default=None)
    cells = [
        result["title"], *map(time_of, times.values()), ratio(times["disttorch eager"], times["PyTorch eager"]),
        ratio(times["disttorch captured"], times["torch.compile"]), rate(result, peak), memory(result),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def listed(names: list[str]) -> str:
    return "; ".join(LINES[n] for n in names) + "."


def text(path: Path | None) -> str:
    """What stands between the markers."""
    if path is None:
        how = "`python3 benchmarks/gpu.py` measures them and `python docs/gpu_table.py` puts them here."
        return f"No GPU has run any of this yet. Not yet measured on a GPU: {listed(list(LINES))} {how}"
    run = json.loads(path.read_text())
    results = {r["name"]: r for r in run["results"] if r["seconds_a_step"]}
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if name not in ("python", "numpy", "triton"))
    peak = run["peak"]
    lines = [
        f"{run['device']['name']}, driver {run['driver']}, {versions}; {run['date']}, commit {run['commit']}: `{run['command']}`"
        f"{', with smaller batches and few rounds' if run['quick'] else ''}. Time of a step in bfloat16 autocast; \"captured\" is ours as "
        "a CUDA graph, torch.compile the fastest of its modes that were measured. A ratio above 1 says that we are faster: of eager "
        "steps, and of the captured one against torch.compile.",
        "",
        f"| what | {' | '.join(COLUMNS.values())} | eager ratio | captured / compile | our best | peak GB, ours / PyTorch's |",
        "| --- |" + " --- |" * (len(COLUMNS) + 4),
        *(row(results[name], peak) for name in LINES if name in results),
    ]
    failed = [
        f"{r['title']}, {column}: {problem.strip().splitlines()[-1]}"
        for r in run["results"] for column, problem in r["errors"].items()
    ]  # fmt: skip
    notes = [f"{r['title']}: {r['note']}" for r in run["results"] if "note" in r]
    if failed or notes:
        lines += ["", *(f"- {note}" for note in [*failed, *notes])]
    missing = [name for name in LINES if name not in results]
    if missing:
        lines += ["", f"Not measured in this run: {listed(missing)}"]  # an earlier one may have, of other code or on another card
    return "\n".join(lines)


def page(readme: str, path: Path | None) -> str:
    """The README with the table as it should be."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md has no {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text(path)}\n{END}{after}"


def main(arguments: list[str]) -> int:
    readme = README.read_text()
    wanted = page(readme, newest())
    if "--check" in arguments:
        print("README.md is as it should be" if readme == wanted else "README.md is not what python docs/gpu_table.py writes")
        return int(readme != wanted)
    README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
