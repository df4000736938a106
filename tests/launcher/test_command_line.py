"""What is refused before anything starts, with exit code 2 and one clear line."""

import os
import stat
import sys

import pytest

from launcher import command_line, mpi
from launcher.__main__ import main
from launcher.command_line import UsageError
from launcher.mpi import ENGINES, MpiError, candidates, find_mpi

REFUSED = [
    # arguments, words of the message
    ([], "-n is missing"),
    (["-n", "2"], "no script"),
    (["good.py"], "-n is missing"),
    (["-n", "0", "good.py"], "at least 1; got '0'"),
    (["-n", "-1", "good.py"], "-1"),
    (["-n", "two", "good.py"], "got 'two'"),
    (["-n", "1.5", "good.py"], "got '1.5'"),
    (["-n", "2", "missing.py"], "there is no script missing.py (current directory: {cwd})"),
    (["-n", "2", "package"], "package is a directory"),
    (["-n", "2", "-m"], "-m needs the name of a module"),
    (["-n", "2", "-m", "nowhere"], "there is no module nowhere"),
    (["-n", "2", "-m", "package.nowhere"], "there is no module package.nowhere"),
    (["-n", "2", "-m", "package"], "package is a package without package.__main__"),
    (["-n", "2", "--threads", "0", "good.py"], "got '0'"),
    (["-n", "2", "--env", "NAME", "good.py"], "NAME=VALUE"),
    (["-n", "2", "--grace", "-3", "good.py"], "--grace"),
    (["-n", "2", "--tags", "good.py"], "--tags"),
    (["-n", "2", "--mpi", "/nowhere/mpiexec", "good.py"], "/nowhere/mpiexec: there is no such program"),
    (["-n", "2", "--mpi", "/bin/true", "good.py"], "/bin/true belongs to no MPI"),
    (["-n", "1000000", "good.py"], "-n 1000000 does not fit"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused(monkeypatch, capfd, tmp_path, plain_environ, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", plain_environ)
    (tmp_path / "package").mkdir()
    for name in ("good.py", "package/__init__.py"):
        (tmp_path / name).write_text("open('ran', 'w')\n")
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert message.format(cwd=tmp_path) in err
    assert err.startswith("dlaunch: ") and len(err.splitlines()) == 1
    assert out == ""
    assert not (tmp_path / "ran").exists()


def test_the_program_ends_with_the_code_of_main(session):
    job = session.run("-n", "0", "good.py")
    assert (job.returncode, job.stdout) == (2, "")
    assert job.stderr == "dlaunch: argument -n/--nproc: must be a whole number, at least 1; got '0'\n"


@pytest.mark.parametrize("target", [["train.py", "--as-torch"], ["-m", "package.train", "-n"]])
def test_a_script_for_pytorch_is_run_by_the_module_for_it(target):
    request = command_line.parse(["-n", "2", "--as-torch", *target])
    assert (request.target, request.program) == (target, ["-m", "disttorch.as_torch", *target])
    assert command_line.parse(["-n", "2", *target]).program == target


@pytest.mark.parametrize("name", ["package.inner", "runnable", "single", "runnable.deep"])
def test_modules_are_found_without_importing_them(monkeypatch, tmp_path, name):
    for directory in ("package", "runnable", "runnable/deep"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for file in ("package/inner.py", "runnable/__main__.py", "runnable/deep/__main__.py", "single.py"):
        (tmp_path / file).write_text("raise RuntimeError('imported')\n")
    monkeypatch.chdir(tmp_path)
    command_line.check_target(["-m", name])


SIZES = [
    # ranks, cores, oversubscribe, environment, "" or words of the warning or (for an error) of the error
    (2, 2, False, {}, ""),
    (4, 2, False, {}, "4 ranks share 2 cores"),
    (4, 2, True, {}, ""),
    (64, 2, False, {}, "64 ranks share 2 cores"),
    (65, 2, False, {}, "error: -n 65 does not fit: dlaunch may use 2 cores here and starts at most 64"),
    (65, 2, True, {}, ""),
    (1600, 100, False, {}, "1600 ranks share 100 cores"),
    (8, 2, False, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, ""),
    (9, 2, False, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, "error: -n 9 does not fit: this Slurm allocation has 8"),
    (9, 2, True, {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8"}, ""),
]


@pytest.mark.parametrize(("ranks", "cores", "oversubscribe", "environ", "said"), SIZES)
def test_sizes(ranks, cores, oversubscribe, environ, said):
    if said.startswith("error: "):
        with pytest.raises(UsageError) as error:
            command_line.check_size(ranks, cores, oversubscribe, environ)
        assert said[7:] in str(error.value) and "--oversubscribe" in str(error.value)
    else:
        warning = command_line.check_size(ranks, cores, oversubscribe, environ)
        assert (warning is None) if said == "" else said in warning


@pytest.mark.parametrize(
    ("environ", "refused"),
    [
        ({"PMI_RANK": "1", "PMI_SIZE": "2"}, True),
        ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"PMI_RANK": "0", "PMI_SIZE": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, False),  # a batch script
        ({}, False),
    ],
)
def test_one_dlaunch_for_each_rank_is_a_mistake(environ, refused):
    if refused:
        with pytest.raises(UsageError, match="start it once"):
            command_line.check_first_launch(environ)
    else:
        command_line.check_first_launch(environ)


def program(path, said):
    """A program that prints something, whatever it is called with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{said}'\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


VERSIONS = {"MPICH": "HYDRA build details:", "Open MPI": "mpiexec (Open MPI) 5.0.11", "Intel MPI": "Intel(R) MPI Library"}
LIBRARIES = {"MPICH": "MPICH Version: 5.0.2", "Open MPI": "Open MPI v5.0.11", "Intel MPI": "Intel(R) MPI Library 2021.1"}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("mpiexec", VERSIONS)
def test_the_mpiexec_must_be_of_the_library(monkeypatch, tmp_path, library, mpiexec):
    path = program(tmp_path / "mpiexec", VERSIONS[mpiexec])
    monkeypatch.setattr(mpi, "_loaded_library", lambda python, environ: (LIBRARIES[library], None))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if library == mpiexec:
        assert find_mpi(path).mpiexec == path
        assert find_mpi("auto", {"PATH": str(tmp_path)}).engine.name == library
    else:
        with pytest.raises(MpiError, match=f"belongs to .*{LIBRARIES[library][:5]}"):
            find_mpi(path)
        with pytest.raises(MpiError, match=rf"no mpiexec of {library}.*pip install .disttorch\[mpich\]"):
            find_mpi("auto", {"PATH": str(tmp_path)})


def test_the_mpiexec_beside_the_library_comes_before_path(tmp_path):
    engine = next(engine for engine in ENGINES if engine.name == "MPICH")
    beside = program(tmp_path / "prefix" / "bin" / "mpiexec", "")
    on_path = program(tmp_path / "other" / "mpiexec", "")
    library = tmp_path / "prefix" / "lib" / "x86_64-linux-gnu" / "libmpi.so.12"
    found = candidates(engine, str(library), {"PATH": os.path.dirname(on_path)})
    assert found.index(beside) < found.index(on_path)


NO_MPI = [
    ({"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}, ["finds no MPI library", 'pip install "disttorch[mpich]"', "MPI4PY_LIBMPI"]),
    ({"PYTHONPATH": "{hidden}"}, ["has no mpi4py", 'pip install "disttorch[mpich]"']),
]


@pytest.mark.parametrize(("environ", "words"), NO_MPI)
def test_without_an_mpi(session, environ, words):
    hidden = session.directory / "hidden"
    hidden.mkdir()
    (hidden / "mpi4py.py").write_text("raise ModuleNotFoundError(\"No module named 'mpi4py'\")\n")
    changed = {name: value.format(hidden=f"{hidden}:{session.environ['PYTHONPATH']}") for name, value in environ.items()}
    job = session.run("-n", 2, session.script("open('ran', 'w')\n"), **changed)
    assert job.returncode == 2
    assert all(word in job.stderr for word in words), job.stderr
    assert not (session.directory / "ran").exists()


def test_version(session):
    from disttorch.version import __version__

    assert session.run("--version").stdout == f"dlaunch {__version__}\n"
