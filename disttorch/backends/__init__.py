"""Switches of the libraries that PyTorch computes with, for the scripts that set them: ``disttorch.backends.cudnn.benchmark``.

Each is a module. `cuda` and `cudnn` decide how CUDA devices compute; what is set in the others is kept and changes nothing, for the
libraries are others here.
"""

from . import cpu, cuda, cudnn, mkl, mkldnn, mps, openmp, opt_einsum

__all__ = ["cpu", "cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp", "opt_einsum"]
