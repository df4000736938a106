"""What is refused before anything starts, with exit code 2 and one clear line."""

import os
import stat
import sys

import pytest

from launcher import checks, command_line, mpi
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
    (["-n", "2", ""], "the name of the script is empty"),
    *((["-n", "2", name], f"the script {name} can be read only once") for name in ("-", "/dev/stdin", "/dev/fd/0", "pipe.py")),
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
    (["-n", "2", "--engine", "torchrun", "good.py"], "--engine"),
    (["-n", "2", "--engine", "srun", "good.py"], "starts the ranks in an allocation, and this is none"),
    (["-n", "2", "--bind", "socket", "good.py"], "--bind"),
    (["-n", "2", "--debug", "all", "good.py"], "--debug"),
    (["-n", "2", "--timeout", "0", "good.py"], "--timeout 0 would let no collective wait"),
    (["-n", "2", "--timeout", "-1", "good.py"], "--timeout"),
    (["-n", "2", "--gpus", "0", "good.py"], "--gpus: it is auto, none, a number of GPUs (4) or a list of them (0,2,3); none"),
    (["-n", "2", "--gpus", "0,1", "--env", "CUDA_VISIBLE_DEVICES=1", "good.py"], "both say which GPUs the ranks see"),
    (["-n", "2", "--gpus", "7,8", "good.py"], "--gpus asks for GPU 7, 8 (counted from 0), but host"),
    (["-n", "2", "--max-restarts", "-1", "good.py"], "--max-restarts"),
    (["-n", "2", "--min-ranks", "3", "good.py"], "--min-ranks 3 is more than all 2 ranks"),
    (["-n", "2", "--hosts", "a", "--hostfile", "h", "good.py"], "one of them is enough"),
    (["-n", "2", "--hosts", "a,,b", "good.py"], "'' is no host"),
    (["-n", "9", "--hosts", "a:4,b:4", "good.py"], "-n 9 does not fit: the hosts take 8 ranks (a:4, b:4); --oversubscribe"),
    (["--hosts", "a,b", "good.py"], "-n is missing"),
    (["-n", "2", "--hostfile", "nowhere", "good.py"], "--hostfile nowhere cannot be read"),
    (["-n", "2", "--hosts", "a,b", "--nnodes", "3", "good.py"], "--nnodes 3, but there are 2 hosts in the list"),
    (["-n", "2", "--nnodes", "2", "good.py"], "--nnodes 2: on which hosts?"),
    (["-n", "2", "--rsh", "ssh", "good.py"], "--hosts or --hostfile must say which"),
    (["-n", "2", "--node-rank", "0", "good.py"], "--node-rank needs --nnodes"),
    (["-n", "2", "--nnodes", "2", "--node-rank", "2", "good.py"], "--node-rank 2 is not one of --nnodes 2"),
    (["-n", "2", "--nnodes", "2", "--node-rank", "1", "good.py"], "--node-rank needs --master-addr"),
    (["-n", "1", "--nnodes", "2", "--node-rank", "1", "good.py"], "too few for --nnodes 2"),
    (["-n", "2", "--nnodes", "2", "--node-rank", "1", "--hosts", "a,b", "good.py"], "by hand; --hosts that it starts all itself"),
    (["-n", "2", "--nnodes", "2", "--node-rank", "1", "--engine", "mpiexec", "good.py"], "--node-rank is the plain engine's"),
    (["-n", "2", "--master-port", "65535", "good.py"], "must be a port, 1 to 65534; got '65535'"),
]


def test_a_current_directory_that_is_gone(monkeypatch, capfd, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["-n", "1", "good.py"]) == 2
    assert capfd.readouterr().err.startswith("dlaunch: the current directory does not exist any more")


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_refused(monkeypatch, capfd, tmp_path, plain_environ, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", plain_environ)
    (tmp_path / "package").mkdir()
    for name in ("good.py", "package/__init__.py"):
        (tmp_path / name).write_text("open('ran', 'w')\n")
    os.mkfifo(tmp_path / "pipe.py")
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


def test_ranks_are_the_slots_of_the_hosts_if_nothing_else_is_said(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("a slots=2\nb slots=3\nc\n")
    assert command_line.parse(["--hosts", "a:2,b:3", "train.py"]).ranks == 5
    assert command_line.parse(["--hostfile", str(path), "train.py"]).ranks == 6
    assert command_line.parse(["--hostfile", str(path), "--nnodes", "2", "train.py"]).ranks == 5
    assert command_line.parse(["--hostfile", str(path), "-n", "4", "train.py"]).ranks == 4


HERE = [
    # options, environment, ranks on this host
    (["-n", "8"], {}, 8),
    (["-n", "8", "--hosts", "n1.invalid:4,n2.invalid:4"], {}, 0),
    (["-n", "8", "--hosts", "n1.invalid:5,localhost:4"], {}, 3),
    (["-n", "8", "--hosts", "n1.invalid:5,localhost:4"], {"SLURM_JOB_ID": "1"}, 8),
    (["-n", "7", "--nnodes", "2", "--node-rank", "0", "--master-addr", "a"], {}, 4),
    (["-n", "7", "--nnodes", "2", "--node-rank", "1", "--master-addr", "a"], {}, 3),
]


@pytest.mark.parametrize(("options", "environ", "expected"), HERE)
def test_ranks_of_this_host(options, environ, expected):
    assert checks.ranks_here(command_line.parse([*options, "train.py"]), environ) == expected


MEETING = [
    # options, environment, address, port
    (["--master-addr", "a", "--master-port", "4711"], {"MASTER_ADDR": "b", "MASTER_PORT": "1"}, "a", 4711),
    ([], {"MASTER_ADDR": "b", "MASTER_PORT": "4712"}, "b", 4712),
    (["--env", "MASTER_ADDR=c"], {"MASTER_ADDR": "b"}, "c", 29500),
]


@pytest.mark.parametrize(("options", "environ", "address", "port"), MEETING)
def test_where_nodes_meet(options, environ, address, port):
    request = command_line.parse(["-n", "2", "--nnodes", "2", "--node-rank", "1", *options, "train.py"])
    request = checks.check_nodes(request, environ)
    assert (request.master_addr, request.master_port) == (address, port)


def test_a_dlaunch_for_each_node_may_be_started_by_srun(session):
    options = ["-n", 2, "--nnodes", 2, "--node-rank", 1, "--master-addr", "127.0.0.1", "--dry-run", session.script("pass\n")]
    step = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    assert session.run(*options, **step).returncode == 0
    assert "start it once" in session.run("-n", 2, "--dry-run", "script.py", **step).stderr


def test_help_is_in_groups(session):
    said = session.run("--help").stdout
    groups = "what to run/how the ranks are started/several hosts/what each rank gets/what is seen of them/when something ends"
    places = [said.index(f"\n{group}:\n") for group in groups.split("/")]
    assert places == sorted(places)
    assert max(map(len, said.splitlines())) <= 80


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
    checks.check_target(["-m", name])


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
            checks.check_size(ranks, cores, oversubscribe, environ)
        assert said[7:] in str(error.value) and "--oversubscribe" in str(error.value)
    else:
        warning = checks.check_size(ranks, cores, oversubscribe, environ)
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
            checks.check_first_launch(environ)
    else:
        checks.check_first_launch(environ)


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
