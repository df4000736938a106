"""--gpus: which GPUs the ranks of a host see. No GPU is needed: it is a matter of one variable."""

import subprocess
import sys

import pytest

from launcher import rank
from launcher.gpus import GpuError, Gpus, parse, present, variables

WORDS = [
    ("auto", Gpus()),
    ("none", Gpus(devices=())),
    ("1", Gpus(number=1)),
    ("8", Gpus(number=8)),
    ("0,2,3", Gpus(devices=(0, 2, 3))),
    ("3,1", Gpus(devices=(3, 1))),
    ("2,", Gpus(devices=(2,))),
]


@pytest.mark.parametrize(("text", "expected"), WORDS)
def test_words(text, expected):
    assert parse(text) == expected


WRONG = [("0", "0, is number 0 alone"), ("", "it is auto"), ("all", "it is auto"), ("-1", "it is auto"), ("0,0", "names a GPU twice")]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_wrong_words(text, message):
    with pytest.raises(GpuError, match=message):
        parse(text)


PRESENT = [
    # CUDA_VISIBLE_DEVICES, device files, what there is
    (None, 0, []),
    (None, 2, ["0", "1"]),
    ("", 2, []),
    ("1", 2, ["1"]),
    ("4,5,6", 8, ["4", "5", "6"]),
    ("GPU-8932f937,MIG-1", 0, ["GPU-8932f937", "MIG-1"]),
    ("0,-1,2", 4, ["0"]),  # CUDA's own rule
]


@pytest.mark.parametrize(("visible", "devices", "expected"), PRESENT)
def test_what_there_is(tmp_path, visible, devices, expected):
    (tmp_path / "dev").mkdir()
    for name in (*(f"nvidia{number}" for number in range(devices)), "nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev" / name).touch()
    assert present({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, tmp_path) == expected


SET = [
    # --gpus, what there is, ranks here, oversubscribe, CUDA_VISIBLE_DEVICES (None: not touched) or words of the error
    (None, ["0", "1"], 4, False, None),
    ("auto", ["0", "1"], 2, False, None),
    ("auto", [], 4, False, None),
    ("auto", ["0", "1"], 4, False, "error: 4 ranks on host n1 would share 2 GPUs: ranks with LOCAL_RANK 2 and above"),
    ("auto", ["0", "1"], 4, True, None),
    ("none", ["0", "1"], 4, False, ""),
    ("none", [], 4, False, ""),
    ("2", ["0", "1", "2"], 2, False, "0,1"),
    ("2", ["4", "5", "6"], 1, False, "4,5"),
    ("2", ["0"], 1, False, "error: GPU 1 .*host n1 has 1"),
    ("0,2", ["4", "5", "6"], 2, False, "4,6"),
    ("2,0", ["0", "1", "2"], 2, False, "2,0"),
    ("0,7", ["0", "1"], 1, False, "error: GPU 7 .*host n1 has 2"),
    ("0,1", [], 1, False, "error: GPU 0, 1 .*has none that this job may use"),
    ("1,", ["0", "1"], 2, False, "error: 2 ranks on host n1 would share 1 GPU:"),
    ("1,", ["0", "1"], 2, True, "1"),
]


@pytest.mark.parametrize(("asked", "found", "ranks", "oversubscribe", "expected"), SET)
def test_what_is_set(asked, found, ranks, oversubscribe, expected):
    gpus = None if asked is None else parse(asked)
    if expected is not None and expected.startswith("error: "):
        with pytest.raises(GpuError, match=expected[7:]):
            variables(gpus, found, ranks, oversubscribe, "n1")
    else:
        set_to = {} if expected is None else {"CUDA_VISIBLE_DEVICES": expected}
        assert variables(gpus, found, ranks, oversubscribe, "n1") == set_to


@pytest.mark.parametrize("engine", ["mpiexec", "plain"])
def test_ranks_see_the_list(session, say, engine):
    script = session.script(say + "say('gpus', visible=os.environ.get('CUDA_VISIBLE_DEVICES'))\n")
    job = session.run("-n", 2, "--engine", engine, "--gpus", "1,3", script, CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert job.returncode == 0, job.stderr
    assert [seen["visible"] for seen in session.files("gpus.*.json", 2)] == ["5,7", "5,7"]


def test_too_few_are_said_before_anything_starts(session):
    job = session.run("-n", 2, "--gpus", "auto", session.script("open('ran', 'w')\n"), CUDA_VISIBLE_DEVICES="3")
    assert job.returncode == 2
    assert "2 ranks on host" in job.stderr and "would share 1 GPU" in job.stderr
    assert not (session.directory / "ran").exists()


def test_a_supervisor_that_finds_too_few_says_so_and_starts_nothing(session, say):
    """On hosts that dlaunch does not see: they learn of their GPUs from their supervisors."""
    place = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
    script = session.script(say + "say('ran')\n")
    said = subprocess.run(
        [sys.executable, rank.__file__, "--run-dir", session.directory / "none", "--kernel", "another", "--gpus", "0,",
         "--target", f'["{script}"]'],
        cwd=session.directory, env={**session.environ, **place, "CUDA_VISIBLE_DEVICES": "0,1"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert said.returncode == 2
    assert "2 ranks on host" in said.stderr and "would share 1 GPU" in said.stderr
    assert not (session.directory / "ran.0.json").exists()
