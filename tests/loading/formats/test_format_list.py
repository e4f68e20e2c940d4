"""The list of formats is complete, and what is derived from it covers every format."""

import pkgutil

import pytest
from broken import CONFIG, WEIGHTS, WRITERS
from foreign import QWEN_NAME

from engine.loading import formats
from engine.loading.formats import FORMATS, files_of_sae, files_on_disk, known_files, load_sae, on_disk
from engine.loading.memory import sae_bytes
from engine.loading.open_pair import sae_fingerprint


def test_every_module_is_listed_and_states_facts_of_its_own():
    modules = {f"{formats.__name__}.{module.name}" for module in pkgutil.iter_modules(formats.__path__)}
    assert modules - {f"{formats.__name__}.files"} == {format.__name__ for format in FORMATS}
    conversions = [conversion for format in FORMATS for conversion in format.CONVERSIONS]
    for facts in ([format.NAME for format in FORMATS], [format.FILES for format in FORMATS], conversions):
        assert len(set(facts)) == len(facts)
    assert set(WRITERS) == set(WEIGHTS) == {format.NAME for format in FORMATS}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_derived_covers_every_format(tmp_path, name):
    folder = tmp_path / QWEN_NAME
    WRITERS[name](folder)
    assert load_sae(folder).config.format == name and f"({name})" in known_files()
    needed = {file for table in (WEIGHTS, CONFIG) if (file := table.get(name))}
    place = on_disk(folder)
    in_repository = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(files_of_sae(in_repository, place.relative_to(folder).as_posix().removeprefix("."))) == needed
    assert folder / WEIGHTS[name] in files_on_disk(place)
    assert sae_bytes(place) == (folder / WEIGHTS[name]).stat().st_size
    before = sae_fingerprint(place)
    (folder / WEIGHTS[name]).write_bytes(b"other")
    assert sae_fingerprint(place) != before


def test_checkpoints_of_a_training_run_need_no_memory(tmp_path):
    WRITERS["dictionary_learning"](tmp_path)
    alone = sae_bytes(tmp_path), sae_fingerprint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ae_1000.pt").write_bytes(b"x" * 10_000)
    assert (sae_bytes(tmp_path), sae_fingerprint(tmp_path)) == alone
