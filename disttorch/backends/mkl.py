"""As ``torch.backends.mkl``: Intel's MKL."""


def is_available() -> bool:
    """Whether it is used: it is not."""
    return False
