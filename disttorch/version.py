"""The version, in the one place where the packages and the build look for it."""

__version__ = "0.1.0"
