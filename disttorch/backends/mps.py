"""As ``torch.backends.mps``: Apple's GPUs."""


def is_available() -> bool:
    """Whether it is used: it is not."""
    return False


def is_built() -> bool:
    """Whether there is code for it: there is not."""
    return False
