"""The numbers on another CPU: the tests that compare bit for bit, once more with the plainest kernels torch has."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NUMERICAL = (
    "models/test_sae.py",
    "generation/test_edits.py",
    "generation/test_decode.py",
    "models/test_encoding_traps.py",
    "generation/test_edit_kinds.py::test_a_step_reads_no_numbers_and_follows_writes_into_the_same_tensors",
    "generation/test_edit_kinds.py::test_rows_do_not_depend_on_each_other",
    "generation/test_edit_kinds.py::test_a_strength_of_one_changes_no_bit_not_even_a_zeros_sign",
    "generation/test_steps.py::test_a_captured_step_follows_every_kind_of_edit_bit_for_bit",
)

NOT_HALF = "not bfloat16 and not dtype1"
"""On a CPU with AMX torch takes that for bfloat16 attention whatever the variable says, and refuses halfway."""


def test_the_numbers_are_right_without_vector_instructions():
    """Torch chooses its kernels when it is imported, so in a process of its own."""
    worker = {name for name in os.environ if name.startswith("PYTEST_")}
    environment = {name: value for name, value in os.environ.items() if name not in worker}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-k", NOT_HALF, *(str(HERE / name) for name in NUMERICAL)],
        env=environment | {"ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        cwd=HERE.parent,
    )
    assert done.returncode == 0, done.stdout[-5000:]
