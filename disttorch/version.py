"""The version, in the one place where the packages and the build look for it."""

__version__ = "0.1.0"

#: as in ``torch.version``, where they are of the library that a build was made for; CuPy finds its own when it is imported
cuda = hip = xpu = git_version = None
debug = False
