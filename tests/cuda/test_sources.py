"""Every CUDA source compiles with NVRTC, without a GPU, for the architectures we name and with all macros that may be asked for."""

import ctypes
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tests import stand_in

ARCHITECTURES = ("compute_70", "compute_80", "compute_90")
#: what CuPy gives NVRTC beside our options (cupy.cuda.compiler)
CUPYS_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")


def all_options(ours: tuple[str, ...], architecture: str) -> tuple[str, ...]:
    """As CuPy compiles: down to the device's own code, so that what a block may have of registers and shared memory is looked at, too."""
    return (*ours, CUPYS_OPTIONS[0], f"-arch={architecture.replace('compute', 'sm')}", *CUPYS_OPTIONS[1:])


def nvrtc_library() -> Path | None:
    """The library of the packages nvidia-cuda-nvrtc-cu12 (or cu13), which need no driver."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(p) for p in (found.submodule_search_locations or ())] if found else []
    libraries = [lib for place in places for lib in sorted(place.glob("**/lib/libnvrtc.so.*")) if "builtins" not in lib.name]
    return libraries[0] if libraries else None


LIBRARY = nvrtc_library()
needs_nvrtc = pytest.mark.skipif(LIBRARY is None, reason="NVRTC is not installed: pip install 'disttorch[cuda-check]'")


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """Our kernels' module of compiling; importing it needs CuPy or what stands for it."""
    if importlib.util.find_spec("cupy") is None:
        with stand_in.installed():
            from disttorch.backend.cuda import kernels
            from disttorch.backend.cuda.kernels import compilation

            assert kernels.CUDA_KERNELS
            return compilation
    from disttorch.backend.cuda import world  # noqa: F401
    from disttorch.backend.cuda.kernels import compilation

    return compilation


class Nvrtc:
    """As much of NVRTC's C interface as compiling needs (https://docs.nvidia.com/cuda/nvrtc/index.html)."""

    def __init__(self, library: Path):
        # the library loads its builtins by name when it compiles
        for builtins in sorted(library.parent.glob("libnvrtc-builtins.so*")):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(library))

    def supports(self, architecture: str) -> bool:
        """Whether it still knows an architecture."""
        count = ctypes.c_int()
        assert self.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)) == 0
        known = (ctypes.c_int * count.value)()
        assert self.library.nvrtcGetSupportedArchs(known) == 0
        return int(architecture.removeprefix("compute_")) in known

    def compile(self, source: str, name: str, options: tuple[str, ...]) -> tuple[bool, str]:
        """Whether it compiles, and what the compiler says."""
        lib, program = self.library, ctypes.c_void_p()
        assert lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None) == 0
        arguments = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
        status = lib.nvrtcCompileProgram(program, len(options), arguments)
        size = ctypes.c_size_t()
        assert lib.nvrtcGetProgramLogSize(program, ctypes.byref(size)) == 0
        log = ctypes.create_string_buffer(size.value)
        assert lib.nvrtcGetProgramLog(program, log) == 0
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        return status == 0, log.value.decode()


@pytest.fixture(scope="module")
def nvrtc() -> Nvrtc:
    assert LIBRARY is not None
    return Nvrtc(LIBRARY)


def test_every_source_has_declared_how_it_may_be_compiled(kernels):
    sources = {p.name for p in kernels.SOURCES.glob("*.cu")}
    assert sources == set(kernels.VARIANTS)
    assert all(kernels.VARIANTS.values())


def test_sources_include_nothing(kernels):
    for path in (*kernels.SOURCES.glob("*.cu"), *kernels.SOURCES.glob("*.cuh")):
        assert "#include" not in path.read_text(), path.name


@needs_nvrtc
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sources_compile(kernels, nvrtc, architecture):
    if not nvrtc.supports(architecture):
        pytest.skip(f"this NVRTC no longer knows {architecture}")
    failed = []
    for source, variants in kernels.VARIANTS.items():
        text = kernels.text_of(source)
        for macros in variants:
            options = all_options(kernels.options(macros), architecture)
            fine, log = nvrtc.compile(text, source, options)
            said = [line for line in log.splitlines() if line.strip() and "Architectures prior to" not in line]
            if not fine or said:  # warnings count, but for the one that an architecture is old
                failed.append(f"{source} {' '.join(options)}\n{log}")
    assert not failed, "\n".join(failed[:3])


@needs_nvrtc
def test_a_mistake_is_found(nvrtc):
    wrong = 'extern "C" __global__ void f(float* x) { *x = undefined_name; }'
    fine, log = nvrtc.compile(wrong, "wrong.cu", ("--gpu-architecture=compute_80",))
    assert not fine
    assert "undefined_name" in log
