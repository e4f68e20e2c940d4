"""Thousands of damaged SAE folders: each works or is refused with a SaeError. helpers/mutate.py tries more."""

from mutate import try_numbers

COUNT = 2000


def test_a_damaged_sae_works_or_is_refused(tmp_path):
    worked, failures = try_numbers(range(COUNT), tmp_path)
    assert not failures, f"{len(failures)} of {COUNT}:\n" + "\n".join(failures[:5])
    assert 0.02 * COUNT < worked < 0.6 * COUNT  # or else the damage tests nothing
