"""As ``torch.backends.cpu``: what the processor can do."""


def get_cpu_capability() -> str:
    """The widest vector instructions that the processor has, in PyTorch's words: "AVX512", "AVX2" or "DEFAULT"."""
    with open("/proc/cpuinfo") as file:
        flags = next((set(line.split()) for line in file if line.startswith("flags")), set())
    return "AVX512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "DEFAULT"
