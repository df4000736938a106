"""Runs programs written for PyTorch, unmodified, and looks at the figures they come to.

The last line that a program of scripts/ prints is names and numbers. One seed means other random numbers in the two libraries, so the
figures are held against bounds that are wide enough for both, and far from what an untrained network gives.
"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT / "examples" / "data" / "digits.csv.gz"

#: program: {name: (least, most)}
IMAGES = {
    "digits_cnn": {"loss": (0.05, 0.5), "accuracy": (0.86, 1)},
    "vae": {"train": (22, 30), "test": (22, 30)},
    "dcgan": {"discriminator": (0.2, 1.6), "generator": (0.4, 3), "gap": (0, 0.7)},
    "siamese": {"first": (1.2, 4), "last": (0.4, 1.7), "accuracy": (0.65, 1)},
    "resnet": {"loss": (1, 1.6), "top1": (50, 95), "top5": (88, 100), "ema": (50, 95)},
    "diffusion": {"first": (0.8, 1.6), "last": (0.1, 0.4), "gap": (0, 0.4)},
}
SEQUENCES = {
    "char_gpt": {"first": (3.1, 3.5), "train": (0.5, 2.0), "val": (0.5, 2.0)},
    "word_lstm": {"lstm": (0.2, 1.0), "gru": (0.2, 1.0), "rnn": (0.2, 1.0)},
    "sine_lbfgs": {"loss": (0, 0.1), "test": (0, 0.1)},
    "seq2seq": {"first": (2, 2.6), "loss": (0, 0.8), "accuracy": (0.75, 1)},
    "transformer": {"first": (2.2, 4), "loss": (0, 1.0), "right": (0.5, 1), "classifier": (0, 0.45)},
}
OTHERS = {
    "gcn": {"gcn": (0, 0.3), "gcn_accuracy": (0.8, 1), "gat": (0, 0.3), "gat_accuracy": (0.75, 1)},
    "reinforce": {"first": (9, 45), "last": (30, 199), "entropy": (0.6, 0.7)},
    "ppo": {"first": (-1.4, -0.7), "last": (-0.45, -0.15)},
    "sac_pieces": {
        "policy_error": (0, 0.1), "gamma": (2.6, 3.5), "rate": (1.7, 2.4), "beta": (4.4, 5.7), "elbo": (-0.5, 0.2),
        "posterior": (0.55, 0.75), "divergence": (0, 0.05),
    },
    "wgan_gp": {"penalty": (0, 1.0), "equation": (0, 0.05), "first": (0.05, 1.5), "last": (0, 0.12)},
    "dqn": {"rightward": (0.8, 1), "grouped": (0.8, 1), "texts": (0.9, 1), "before": (2, 7), "after": (1.4, 2.4)},
}  # fmt: skip
BOUNDS = {**IMAGES, **SEQUENCES, **OTHERS}


def figures(command, name, folder):
    """The names and numbers that a program's last line tells."""
    text = (HERE / "scripts" / f"{name}.py").read_text()
    data = ["--data", str(DATA)] if '"--data"' in text else []
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(HERE / "scripts" / f"{name}.py"), *data],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[-1].split()
    return dict(zip(words[::2], map(float, words[1::2]))), done.stderr


def check(found, name):
    """Whether figures are what a program shall come to."""
    assert found.keys() == BOUNDS[name].keys()
    outside = {key: (value, BOUNDS[name][key]) for key, value in found.items() if not BOUNDS[name][key][0] <= value <= BOUNDS[name][key][1]}
    assert not outside


def check_ours(name, folder):
    """Run a program with our library under PyTorch's name; it must not warn."""
    found, said = figures(["-W", "error", "-m", "disttorch.as_torch"], name, folder)
    check(found, name)
    assert said == ""
