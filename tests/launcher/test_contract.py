"""What a rank finds in its environment."""

import json
import os
import re
import sys

import pytest

from launcher import contract
from launcher.meeting import master_address
from launcher.processor import core_type_variables, weaker_core_type

OMP, BLAS, MKL = contract.THREAD_VARIABLES

SHOW = """
say("environ", environ=dict(os.environ), argv=sys.argv, path0=sys.path[0], module=__name__, file=__file__)
"""


def test_every_rank_finds_its_place(session, say):
    script = session.script(say + SHOW)
    job = session.run("-n", 3, "--oversubscribe", script, "--lr", "3", ":", "a b", "-n", "7")
    assert (job.returncode, job.stdout, job.stderr) == (0, "", "")
    ranks = session.files("environ.*.json", 3)
    for rank, seen in enumerate(ranks):
        environ = seen["environ"]
        expected = {"RANK": rank, "WORLD_SIZE": 3, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 3}
        assert {name: int(environ[name]) for name in expected} == expected
        assert environ["MASTER_ADDR"] == "127.0.0.1"
        assert 1024 < int(environ["MASTER_PORT"]) < 65536
        assert environ["DISTTORCH_LAUNCHER"] == "dlaunch"
        assert environ["DISTTORCH_ATTEMPT"] == "0"
        assert not {"DISTTORCH_TIMEOUT", "DISTTORCH_DEBUG", "DISTTORCH_FLIGHT_DIR", "CUDA_VISIBLE_DEVICES"} & environ.keys()
        assert environ["PYTHONFAULTHANDLER"] == "1"
        threads = str(max(1, len(os.sched_getaffinity(0)) // 3))
        assert [environ[name] for name in contract.THREAD_VARIABLES] == [threads] * 3
        assert environ.get("OPENBLAS_CORETYPE") == core_type_variables({}).get("OPENBLAS_CORETYPE")
        assert seen["argv"] == [str(script), "--lr", "3", ":", "a b", "-n", "7"]
        assert seen["path0"] == str(session.directory)
        assert (seen["module"], seen["file"]) == ("__main__", str(script))
    for name in ("MASTER_PORT", "DISTTORCH_RUN_DIR"):
        assert len({seen["environ"][name] for seen in ranks}) == 1
    assert not os.path.exists(ranks[0]["environ"]["DISTTORCH_RUN_DIR"])


def test_the_rank_in_mpi_is_the_rank_in_the_environment(session, say):
    script = session.script(
        say + "from mpi4py import MPI\nworld = MPI.COMM_WORLD\n"
        "say('mpi', mpi_rank=world.rank, size=world.size, total=world.allreduce(10 ** world.rank))\n"
    )
    assert session.run("-n", 3, "--oversubscribe", script).returncode == 0
    seen = session.files("mpi.*.json", 3)
    assert [(r["mpi_rank"], r["size"], r["total"]) for r in seen] == [(0, 3, 111), (1, 3, 111), (2, 3, 111)]


SET_BY_USER = [
    # options, environment, what rank 0 finds
    (["--threads", "5"], {}, {OMP: "5", BLAS: "5", MKL: "5"}),
    (["--threads", "5"], {OMP: "7"}, {OMP: "5", BLAS: "5", MKL: "5"}),
    ([], {OMP: "7,2", MKL: "3"}, {OMP: "7,2", BLAS: "7", MKL: "3"}),
    ([], {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}, {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}),
    ([], {"PYTHONFAULTHANDLER": "0"}, {"PYTHONFAULTHANDLER": "0"}),
    ([], {"UCX_DEBUG_SIGNO": "12"}, {"UCX_DEBUG_SIGNO": "12"}),
    ([], {"OPENBLAS_CORETYPE": "SkylakeX"}, {"OPENBLAS_CORETYPE": "SkylakeX"}),
    (["--env", "A=b=c", "--env", "EMPTY=", "--env", f"{MKL}=9"], {}, {"A": "b=c", "EMPTY": "", MKL: "9"}),
    (["--timeout", "90", "--debug", "mismatch"], {}, {"DISTTORCH_TIMEOUT": "90", "DISTTORCH_DEBUG": "mismatch"}),
    (["--timeout", "0.5"], {"DISTTORCH_TIMEOUT": "7"}, {"DISTTORCH_TIMEOUT": "0.5"}),
    ([], {"DISTTORCH_TIMEOUT": "7"}, {"DISTTORCH_TIMEOUT": "7"}),
    (["--timeout", "9", "--env", "DISTTORCH_TIMEOUT=8"], {}, {"DISTTORCH_TIMEOUT": "8"}),
    (["--master-addr", "127.0.0.2"], {"MASTER_ADDR": "10.0.0.1"}, {"MASTER_ADDR": "127.0.0.2"}),
    (["--master-port", "4711"], {"MASTER_PORT": "10"}, {"MASTER_PORT": "4711"}),
    (["--log-dir", "logs"], {}, {"DISTTORCH_FLIGHT_DIR": "{cwd}/logs"}),
    (["--log-dir", "logs"], {"DISTTORCH_FLIGHT_DIR": "/elsewhere"}, {"DISTTORCH_FLIGHT_DIR": "/elsewhere"}),
    # A rank of another job starts this one: that job's address is not this one's.
    ([], {"DISTTORCH_LAUNCHER": "dlaunch", "MASTER_ADDR": "10.0.0.1"}, {"MASTER_ADDR": "127.0.0.1"}),
]


@pytest.mark.parametrize(("options", "environ", "expected"), SET_BY_USER)
def test_what_the_user_sets_wins(session, say, options, environ, expected):
    job = session.run("-n", 1, *options, session.script(say + SHOW), **environ)
    assert job.returncode == 0, job.stderr
    [seen] = session.files("environ.*.json", 1)
    expected = {name: value.format(cwd=session.directory) for name, value in expected.items()}
    assert {name: seen["environ"].get(name) for name in expected} == expected


THREADS = [
    # asked, cores, ranks here, environment, processors' time of a rank, result
    (None, 8, 1, {}, None, {OMP: "8", BLAS: "8", MKL: "8"}),
    (None, 8, 3, {}, None, {OMP: "2", BLAS: "2", MKL: "2"}),
    (None, 2, 4, {}, None, {OMP: "1", BLAS: "1", MKL: "1"}),
    (None, 8, 2, {BLAS: "1"}, None, {OMP: "4", MKL: "4"}),
    (None, 8, 2, {OMP: "3"}, None, {BLAS: "3", MKL: "3"}),
    (None, 8, 2, {OMP: "false"}, None, {BLAS: "4", MKL: "4"}),
    (3, 8, 2, {OMP: "1"}, None, {OMP: "3", BLAS: "3", MKL: "3"}),
    (None, 8, 1, {}, 2.5, {OMP: "2", BLAS: "2", MKL: "2"}),
    (None, 8, 2, {}, 6.0, {OMP: "4", BLAS: "4", MKL: "4"}),
    (None, 8, 1, {}, 0.5, {OMP: "1", BLAS: "1", MKL: "1"}),
    (None, 8, 1, {OMP: "4"}, 2.0, {BLAS: "4", MKL: "4"}),
    (6, 8, 1, {}, 2.0, {OMP: "6", BLAS: "6", MKL: "6"}),
]


@pytest.mark.parametrize(("asked", "cores", "ranks", "environ", "at_a_time", "expected"), THREADS)
def test_threads(asked, cores, ranks, environ, at_a_time, expected):
    assert contract.thread_variables(asked, cores, ranks, environ, at_a_time) == expected


PMI = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
OMPI = {f"OMPI_COMM_WORLD_{n}": v for n, v in (("RANK", "2"), ("SIZE", "5"), ("LOCAL_RANK", "0"), ("LOCAL_SIZE", "1"))}
SLURM = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "1", "SLURM_NODEID": "2"}
PLACES = [
    (PMI, (3, 4, 1, 2)),
    (OMPI, (2, 5, 0, 1)),
    ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, (5, 6, 1, 2)),
    ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1(x2),4"}, (5, 6, 1, 4)),
    ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,1,4"}, (5, 6, 1, 4)),
    ({**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x3)", "PMI_RANK": "5", "PMI_SIZE": "6"}, (5, 6, 1, 2)),  # srun --mpi=pmi2
    ({**SLURM, **PMI}, (3, 4, 1, 2)),  # under mpiexec Slurm's numbers are those of its proxies
    ({}, None),
]


@pytest.mark.parametrize(("environ", "expected"), PLACES)
def test_places(environ, expected):
    assert contract.find_place(environ) == expected


@pytest.mark.parametrize("environ", [{"PMI_RANK": "0"}, {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "1"}])
def test_an_incomplete_place_is_an_error(environ):
    with pytest.raises(ValueError, match="incomplete place"):
        contract.find_place(environ)


NODES = [("n1,n2", "n1"), ("n[1-2]", "n1"), ("gpu[07-08,11]", "gpu07"), ("a[3-4]b[01-02],c", "a3b01"), ("x-[5],y", "x-5")]


@pytest.mark.parametrize(("nodes", "first"), NODES)
def test_rank_0_of_a_slurm_allocation(nodes, first):
    assert master_address({"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": nodes}) == first
    assert master_address({"SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_NODELIST": nodes}) == "127.0.0.1"


AVX512 = "flags\t\t: fpu avx2 avx512f avx512bw avx512cd avx512dq avx512vl\n"
ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n" + AVX512
CORE_TYPES = [
    # what is set, /proc/cpuinfo, whether there is something to say, what ranks get
    ("Haswell", AVX512, True, None),
    ("Zen", AVX512, True, None),
    ("SKYLAKEX", AVX512, False, None),
    ("SapphireRapids", AVX512, False, None),
    ("", AVX512, False, None),
    ("Haswell", "flags\t\t: fpu avx2 avx512f\n", False, None),
    ("Haswell", "Features\t: fp asimd\n", False, None),
    ("Haswell", None, False, None),
    ("", None, False, None),
    ("", ZEN4, False, "Haswell"),
    ("Zen", ZEN4, False, None),
    ("SkylakeX", ZEN4, False, None),
    ("", ZEN4.replace("25", "26"), False, None),
    ("Haswell", ZEN4.replace("25", "26"), True, None),
    ("", ZEN4.replace("AuthenticAMD", "GenuineIntel"), False, None),
    ("", ZEN4.replace("avx512vl", ""), False, None),  # Zen 3
    ("", ZEN4 + "\n" + ZEN4.replace("25", "26"), False, "Haswell"),
]


@pytest.mark.parametrize(("forced", "cpuinfo", "warns", "given"), CORE_TYPES)
def test_the_core_type_fits_the_processor(tmp_path, forced, cpuinfo, warns, given):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(f"processor\t: 0\n{cpuinfo}")
    environ = {"OPENBLAS_CORETYPE": forced}
    said = weaker_core_type(environ, path)
    assert (said is not None) == warns
    assert said is None or f"OPENBLAS_CORETYPE={forced}" in said
    assert core_type_variables(environ, path).get("OPENBLAS_CORETYPE") == given


@pytest.mark.skipif(weaker_core_type({"OPENBLAS_CORETYPE": "Haswell"}) is None, reason="this processor does not gain by AVX-512")
@pytest.mark.parametrize(("options", "seen"), [([], "None"), (["--env", "OPENBLAS_CORETYPE=Haswell"], "Haswell")])
def test_ranks_do_without_a_weaker_core_type(session, options, seen):
    script = session.script("import os\nprint('core type', os.environ.get('OPENBLAS_CORETYPE'), flush=True)\n")
    ended = session.run("-n", "2", *options, script, OPENBLAS_CORETYPE="Haswell")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"core type {seen}\n") == 2
    assert ("OPENBLAS_CORETYPE=Haswell is left out for the ranks" in ended.stderr) == (not options)


def test_the_same_script_under_python_and_mpiexec(session):
    """Without the launcher: plain `python` is a world of one, plain `mpiexec` a world of two."""
    import subprocess

    from launcher.launch import Launch
    from launcher.mpi import find_mpi

    script = session.script("from mpi4py import MPI\nprint(MPI.COMM_WORLD.allreduce(1), flush=True)\n")
    mpi = find_mpi("auto", session.environ)
    launches = {
        "python": ([], ["1"]),
        "mpiexec": (mpi.command(Launch(2, [])), ["2", "2"]),
        "dlaunch": ([sys.executable, "-m", "launcher", "-n", "2"], ["2", "2"]),
    }
    for name, (prefix, expected) in launches.items():
        python = [] if name == "dlaunch" else [sys.executable]
        said = subprocess.check_output(
            [*prefix, *python, str(script)], env=session.environ, stdin=subprocess.DEVNULL, text=True, timeout=60
        )
        assert re.findall(r"\d", said) == expected, name


def test_dry_run_prints_the_command_and_runs_nothing(session, say):
    script = session.script(say + SHOW)
    job = session.run("-n", 2, "--dry-run", "--threads", 3, "--env", "GREETING=good day", script, "x y")
    assert (job.returncode, job.stderr) == (0, "")
    assert "GREETING='good day'" in job.stdout
    assert f"{OMP}=3" in job.stdout
    assert json.dumps([str(script), "x y"]) in job.stdout
    assert re.search(r"^/\S*/mpiexec\S* -n 2 ", job.stdout, re.MULTILINE)
    assert not list(session.directory.glob("environ.*"))
