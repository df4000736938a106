"""As ``torch.backends.mkldnn``: oneDNN inside PyTorch's CPU operations."""


def is_available() -> bool:
    """Whether it is used: it is not."""
    return False


enabled = False
