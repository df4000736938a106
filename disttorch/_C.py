"""What libraries for PyTorch call of its compiled part without harm: nothing else of ``torch._C`` is here."""


def _log_api_usage_once(event: str) -> None:
    """Accepted as in PyTorch, where it is for those who count what is used."""
