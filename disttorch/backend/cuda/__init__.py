"""The CUDA world. Imported when a CUDA device is first asked for, since it imports CuPy.

`world` is the namespace and what makes arrays; `kernels` are our own CUDA kernels; `devices` and `streams` are what
`disttorch.cuda` shows to users.
"""

from .world import cuda, device_count

__all__ = ["cuda", "device_count"]
