"""Tests that a run on the stand-in for a GPU leaves out, since they are about the CPU, and why."""

from __future__ import annotations

from fnmatch import fnmatch

__all__ = ["why_left_out"]

INDICES = "to look at indices, classes and divisors would mean to wait for the device; as in PyTorch, none is looked at there"
NUMPYS = "a device's memory is not NumPy's, so nothing is shared with it, nor marked read-only by it"
MEMORY = "it counts the host's memory, in which the stand-in keeps the device's, and its books"
AUTOCAST = "autocast of the CPU, with its lists; tests/cuda has the GPU's"

LEFT_OUT = (
    ("tests/amp/test_autocast.py::*", AUTOCAST),
    ("tests/amp/test_grad_scaler.py::test_what_step_returns", "a step that is skipped on the device is not known on the host"),
    ("tests/autograd/test_backward.py::test_gradients_may_have_a_home", NUMPYS),
    ("tests/autograd/test_checkpoint.py::test_the_second_call_has_the_precision_of_the_first*", AUTOCAST),
    ("tests/autograd/test_memory_and_threads.py::test_training_steps_do_not_leak", MEMORY),
    ("tests/autograd/test_memory_and_threads.py::test_10_000_steps_take_no_more_memory", MEMORY),
    ("tests/nn/test_attention.py::test_memory_does_not_grow_with_the_product_of_lengths*", MEMORY),
    *((f"tests/nn/test_formulas.py::test_mistakes_are_named?{number}?", INDICES) for number in (21, 22, 29, 30, 42, 67, 69, 74, 75)),
    ("tests/nn/test_module.py::*test_parameters_stay_the_objects_they_are*", "the module goes to the CPU, and its inputs do not"),
    ("tests/nn/test_module.py::*test_they_print_as_pytorchs", "a GPU's tensors print with their device"),
    ("tests/ops/test_arithmetic.py::test_division_of_integers_by_rounding", INDICES),
    ("tests/ops/test_conversion_and_linear.py::test_to_numpy_and_back_without_a_copy*", NUMPYS),
    ("tests/ops/test_conversion_and_linear.py::test_dlpack_both_ways_without_a_copy*", "NumPy imports memory of the host only"),
    ("tests/ops/test_conversion_and_linear.py::test_dlpack_with_pytorch", "PyTorch for CPUs imports memory of the host only"),
    ("tests/ops/test_conversion_and_linear.py::test_to", "of a tensor on the CPU"),
    ("tests/ops/test_conversion_and_linear.py::test_identity", "of a tensor on the CPU"),
    ("tests/ops/test_creation_and_random.py::test_tensor_copies_and_as_tensor_does_not", NUMPYS),
    ("tests/ops/test_creation_and_random.py::test_read_only_arrays_can_be_read_and_not_written", NUMPYS),
    ("tests/ops/test_distributions.py::test_generators_copied", "of a generator on the CPU"),
    ("tests/ops/test_indexing.py::test_errors?*IndexError*-3?", INDICES),
    ("tests/ops/test_shapes_of_all_kinds.py::test_where_tensors_lie", "of memory that NumPy has laid out"),
    ("tests/ops/test_shapes_of_all_kinds.py::test_a_part_of_an_expanded_tensor_that_shows_no_place_twice_can_be_changed", NUMPYS),
    ("tests/ops/test_two_operands.py::test_errors?*ZeroDivision*", INDICES),
)
"""Patterns of names of tests, as fnmatch reads them: ? stands for a bracket."""


def why_left_out(name: str) -> str:
    """The reason why a test is left out; empty where it is not."""
    return next((reason for pattern, reason in LEFT_OUT if fnmatch(name, pattern)), "")
