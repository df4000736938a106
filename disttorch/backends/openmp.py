"""As ``torch.backends.openmp``: OpenMP in the package itself."""


def is_available() -> bool:
    """Whether it is used: it is not."""
    return False
