"""Sets written as TOML load equal, read well, and a write that fails changes nothing."""

import os
import random
import unicodedata

import pytest

import prompts
from prompts import Entry, ProbeEntry, PromptSetError, PromptSetFile, Settings, load
from prompts.writer import write

PIECES = [
    *"ab \t\n\r\x00\x01\x07\x08\x0b\x0c\x1b\x7f\x85'\"\\#=[]{},.",
    "\r\n", '"""', "'''", "\\u0041", "\\", "é", "ß", "\u2028", "\u202e", "\ufeff", "𝒳", "👩‍🔬", "\ue000", "\U0010ffff",
    " she", "true", "1979-05-27", "inf",
]  # fmt: skip


def random_text(rng, number=None):
    """Text of awkward pieces; `number` makes it unlike every other, as the texts of a set must be."""
    text = "".join(rng.choices(PIECES, k=rng.randrange(8)))
    return text if number is None else f"{text}{number}{rng.choice(PIECES)}"


def random_probe(rng, number):
    names = {random_text(rng) for _ in range(rng.randrange(3))}
    answers = {name: tuple(random_text(rng, 1) for _ in range(rng.randrange(1, 4))) for name in names}
    return ProbeEntry(random_text(rng, number), rng.choice(["raw", "chat"]), random_text(rng), answers)


def random_set(rng):
    entries = [Entry(random_text(rng, i), rng.choice(["", random_text(rng)])) for i in range(rng.randrange(6))]
    cut = rng.randrange(len(entries) + 1)
    scale = rng.choice([0.0, 0.125, -3.0, 1e300, 5e-324, 1e16, rng.uniform(-9, 9)])
    positions = rng.choice(["all", "prompt", "generated", "last", "first-step"])
    return PromptSetFile(
        name=rng.choice(["mine", "a-b_3", "größe"]),
        description=random_text(rng),
        format=rng.choice(["raw", "chat"]),
        settings=rng.choice([Settings(), Settings(scale, rng.random() < 0.5, positions)]),
        positive=tuple(entries[:cut]),
        negative=tuple(entries[cut:]),
        probe=tuple(random_probe(rng, i) for i in range(rng.randrange(4))),
    )


def test_hundreds_of_random_sets_load_equal(tmp_path):
    path = tmp_path / "x.toml"
    for seed in range(400):
        found = random_set(random.Random(seed))
        write(found, path)
        again = load(str(path))
        assert again == found, seed
        assert [list(p.answers) for p in again.probe] == [list(p.answers) for p in found.probe]


@pytest.mark.parametrize("name", prompts.packaged())
def test_packaged_sets_load_equal_and_come_out_as_they_were_written_by_hand(name, tmp_path):
    path = tmp_path / "x.toml"
    write(load(name), path)
    assert load(str(path)) == load(name)
    by_hand = prompts.find(name).read_text("utf-8").splitlines()
    bare = [line for line in by_hand if not line.startswith("#")]
    defaults = {'format = "chat"'} if load(name).format == "raw" else set()
    wanted = [line for line in bare if line and line not in defaults]
    assert [line for line in path.read_text("utf-8").splitlines() if line] == wanted


def test_no_control_character_is_in_the_file(tmp_path):
    text = "".join(map(chr, (*range(32), *range(0x7F, 0xA0))))
    path = tmp_path / "x.toml"
    found = PromptSetFile("x", text, positive=(Entry("a" + text),), negative=(Entry("b"),))
    write(found, path)
    assert not [c for c in path.read_text("utf-8") if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert load(str(path)) == found


def test_it_reads_well(tmp_path):
    found = PromptSetFile(
        "mine",
        format="chat",
        settings=Settings(reconstruct=True),
        positive=(Entry("a\nb"),),
        negative=(Entry('say "c"', breaks="d"),),
        probe=(ProbeEntry("e", answers={"she": (" she", " her"), "or he": (" he",)}), ProbeEntry("f", "raw", "g")),
    )
    write(found, tmp_path / "x.toml")
    assert (tmp_path / "x.toml").read_text("utf-8").splitlines() == [
        'name = "mine"',
        'format = "chat"',
        "",
        "[settings]",
        "reconstruct = true",
        "",
        "[[positive]]",
        'text = "a\\nb"',
        "",
        "[[negative]]",
        'text = "say \\"c\\""',
        'breaks = "d"',
        "",
        "[[probe]]",
        'text = "e"',
        "[probe.answers]",
        'she = [" she", " her"]',
        '"or he" = [" he"]',
        "",
        "[[probe]]",
        'text = "f"',
        'format = "raw"',
        'prefill = "g"',
    ]


MINE = PromptSetFile("mine", positive=(Entry("a"),))


@pytest.mark.parametrize(
    ("found", "part"),
    [
        (PromptSetFile("a b"), "name: 'a b'"),
        (PromptSetFile("x", positive=(Entry(" "),)), "positive[0].text"),
        (PromptSetFile("x", positive=(Entry("a"),), negative=(Entry("a "),)), "negative[0].text"),
        (PromptSetFile("x", probe=(ProbeEntry("a", answers={"b": ()}),)), "probe[0].answers.b"),
        (PromptSetFile("x", description="\ud800"), "surrogates"),
        (PromptSetFile("x", settings=Settings(float("nan"))), "settings.scale: nan is not a number"),
        (PromptSetFile("x", settings=Settings(float("inf"))), "settings.scale: inf is not a number"),
        (PromptSetFile("x", positive=(Entry("a", breaks=3),)), "Expected `str`"),
        (PromptSetFile("x", format="spoken"), "spoken"),
    ],
)
def test_what_would_not_load_is_not_written(tmp_path, found, part):
    path = tmp_path / "x.toml"
    write(MINE, path)
    with pytest.raises(PromptSetError) as caught:
        write(found, path)
    assert part in caught.value.message
    assert caught.value.message.startswith(str(path))
    assert caught.value.remedy
    assert load(str(path)) == MINE


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync"])
def test_a_failing_write_keeps_the_old_file_and_leaves_no_litter(tmp_path, monkeypatch, broken):
    path = tmp_path / "x.toml"
    write(MINE, path)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(PromptSetError, match="No space left on device"):
            write(PromptSetFile("other"), path)
    assert load(str(path)) == MINE
    assert [p.name for p in tmp_path.iterdir()] == ["x.toml"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.toml").mkdir()
    for path, part in (
        (tmp_path / "file" / "x.toml", "cannot be written"),
        (tmp_path / "folder.toml", "cannot be written"),
        (tmp_path / "x", "ends in .toml"),
    ):
        with pytest.raises(PromptSetError, match=part):
            write(MINE, path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.toml"]


def test_folders_are_made_links_stay_links_and_permissions_stay(tmp_path):
    target, link = tmp_path / "a" / "b.toml", tmp_path / "link.toml"
    write(MINE, target)
    os.chmod(target, 0o640)
    link.symlink_to(target)
    write(PromptSetFile("other"), link)
    assert link.is_symlink()
    assert load(str(target)).name == "other"
    assert target.stat().st_mode & 0o777 == 0o640
    plain = tmp_path / "plain"
    plain.touch()
    write(MINE, tmp_path / "new.toml")
    assert (tmp_path / "new.toml").stat().st_mode == plain.stat().st_mode
