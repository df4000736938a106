"""Collection of docstring examples: modules for hardware that is not here are left out."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("cupy") else ["disttorch/backend/cuda.py"]
