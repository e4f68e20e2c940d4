"""Hand-made results, every field set, for what prints, exports and stores them."""

import msgspec

from engine.files import session as sessions
from engine.records import (
    Answer,
    AnswerRow,
    Arm,
    Attribute,
    AttributedFeature,
    Attribution,
    Bin,
    Check,
    CoActive,
    Described,
    Diagnosis,
    Edit,
    EditsFrom,
    Effect,
    FeatureRow,
    FedPrompt,
    FindMinimalSet,
    Generated,
    Load,
    Loaded,
    Measure,
    MinimalSet,
    Neighbour,
    OtherArm,
    Probe,
    ProbeMeasured,
    ProbeRow,
    ProbeTable,
    Prompt,
    PromptSet,
    Ranking,
    Sampling,
    SetMember,
    Shown,
    StrongToken,
    TokenLogit,
)

LOAD = Load(model="tiny/model", sae="tiny/sae", device="cpu", dtype="float32")

LOADED = Loaded(
    model="tiny/model",
    model_fingerprint="0123456789abcdef" * 4,
    sae="tiny/sae",
    sae_fingerprint="fedcba9876543210" * 4,
    hook="blocks.1.hook_resid_pre",
    hook_module="input of model.layers.1",
    d_model=16,
    d_sae=65536,
    encoder="jumprelu",
    normalisation="none",
    device="cpu",
    dtype="float32",
    threads=1,
    versions={"python": "3.11", "torch": "2.13"},
    reference="neutral.txt",
    reference_tokens=1000,
    reference_fingerprint="ab" * 32,
)

POSITIVE = FedPrompt(
    "Women lead", "raw", (0, 5, 6), ("<s>", "Women", " lead"), (False, True, True), (False, True, True)
)

NEGATIVE = FedPrompt(
    "Cats [b]|\nsleep",
    "chat",
    (0, 7, 8, 9),
    ("<s>", "Cats", " [b]|\n", "sleep"),
    (False, True, True, False),
    (False, True, True, True),
)

RANKING = Ranking(
    features=(
        FeatureRow(4133, (" women", "\n", "[red]"), 1.2345678901234567, 0.75, 1.0, 3.25, 2.5, 1.0, 0.25, 0.0005, 12.5),
        FeatureRow(7, (), -0.5, -0.125, 0.375, -1.5, None, 0.0, 1.0, 0.25, 0.0, p=0.01, loo=4),
    ),
    by="score",
    pool="max",
    include_masked=False,
    density_weight=True,
    n_positive=5,
    n_negative=2,
    n_active_features=1234,
    labelings=21,
    p_floor=1 / 21,
    warnings=("5 against 2 prompts has only 21 labelings: no p below 0.0476 is possible.",),
    prompts=(POSITIVE, NEGATIVE),
)

SHOWN = Shown(4133, (POSITIVE, NEGATIVE), ((9.0, 0.0, 2.5), (0.0, 0.0, 1.25, 3.0)), 5.0)

DESCRIBED = Described(
    feature=4133,
    density=0.00123,
    reference_maximum=7.5,
    reference_count=123,
    reference_tokens=100000,
    strongest=(
        StrongToken(7.5, " women", "of the\n", " in the town", "reference"),
        StrongToken(2.5, " [lead]", "Women", "", "prompt"),
    ),
    promoted=(TokenLogit(5, " her", 1.5), TokenLogit(6, "[/b]", 1.25)),
    suppressed=(TokenLogit(8, " his", -2.0), TokenLogit(9, "\n", -0.125)),
)

EDITS = (Edit(4133), Edit(574, 0.125))

GENERATED = Generated(
    prompt=NEGATIVE,
    sampling=Sampling(8, 0.5, 3),
    edits=EDITS,
    schedule=(EditsFrom(0, EDITS),),
    rows=2,
    baseline=Arm("She is\na nurse.", (5, 6, 7, 1), ("She", " is", "\na nurse.", "</s>"), (-0.5, -0.25, -1.0, -0.125)),
    edited=Arm("They is |both|", (9, 6, 8), ("They", " is", " |both|"), (-0.75, -0.5, -2.0)),
    first_divergence=0,
    kl=(0.5, 0.25, 0.0, 0.25),
    positions=9,
    inactive_positions=4,
    tokens_per_second=41.5,
)

PUBLISHED = (Edit(4133, 0.125, at="first-step"), Edit(kind="reconstruct", at="first-step"))

ARMS = msgspec.structs.replace(
    GENERATED,
    prompt=msgspec.structs.replace(NEGATIVE, prefill="It |is|"),
    sampling=Sampling(8, 0.5, 3, 40, 0.9, 0.05, (".", "\n")),
    schedule=(EditsFrom(0, EDITS), EditsFrom(2, ()), EditsFrom(3, (Edit(7, 2.0, "set", "generated", absolute=14.5),))),
    rows=9,
    variants=((Edit(9),), PUBLISHED),
    more=(
        OtherArm(0, True, 0, Arm("one", (1,), ("one",), (-0.5,), (0.25,)), 11, 1),
        OtherArm(0, True, 1, Arm("two", (2,), ("two",), (-0.5,)), 12, 2),
        OtherArm(1, False, None, Arm("base", (6,), ("base",), (-0.5,))),
        OtherArm(1, True, None, Arm("three", (3,), ("three",), (-0.5,)), 13, 3),
        OtherArm(1, True, 0, Arm("four", (4,), ("four",), (-0.5,)), 14, 4),
        OtherArm(1, True, 1, Arm("five", (5,), ("five",), (-0.5,)), 15, 5),
    ),
    branched_at=2,
    stopped=True,
)
"""A generation with all there can be to it."""

PROBE = Probe("Which gender?", "chat", "It is", (Answer("female", (" she", " female")), Answer("male", (" he",))))

PROBES = ProbeTable(
    EDITS,
    (ProbeRow(PROBE, GENERATED, (AnswerRow("female", 0.75, 0.5), AnswerRow("male", 0.125, 0.25)), flags=(" he",)),),
)

DIAGNOSIS = Diagnosis(
    (Check("d_in", True, "16"), Check("L0", False, "900"), Check("hook", None, "x")), 900.0, 0.25, 4000
)

PROMPT_SET = PromptSet("mine", (Prompt("Women lead"),), (Prompt("Cats [b]|\nsleep", "chat"),), (PROBE,))

NURSE = Probe(
    "The nurse said that", "raw", "", (Answer("female", (" she", " her")), Answer("male", (" he",))), covariate=2.15
)

PLUMBER = Probe("The plumber [b] said that", "raw", "", NURSE.answers, covariate=-4.96)

SISTER = Probe("My sister said that", "raw", "", NURSE.answers, right="female")

MEASURE = Measure((NURSE, PLUMBER, SISTER), "female", "male")

ATTRIBUTION = Attribution(
    request=Attribute(MEASURE, top=3, exact=2, controls=20, candidates=(4133, 7, 9), also=(9,)),
    probes=(
        ProbeMeasured(msgspec.structs.replace(POSITIVE, text=NURSE.text), 1.25, 0.75, 2.15),
        ProbeMeasured(msgspec.structs.replace(POSITIVE, text=PLUMBER.text), -0.5, 0.125, -4.96),
    ),
    slope=True,
    baseline=0.25,
    features=(
        AttributedFeature(4133, (" women", "\n", "[red]"), -0.0625, -0.125, 40.5, 0.0005, 1.0),
        AttributedFeature(7, (), 0.03125, 0.0123456789012345, 3.0, 0.25, 0.5),
        AttributedFeature(9, (" a",), -0.0078125, None, 2.0, 0.125),
        AttributedFeature(11, (" b",), 0.001, -0.002, 1.0, 0.0625, control=True),
        AttributedFeature(12, (" c",), 0.001, 0.004, 1.0, 0.0625, control=True),
    ),
    n_active_features=1234,
    n_controls=20,
    spearman=0.875,
    spearman_activation=0.125,
    dtype="float32",
    warnings=("On 1 of 2 probes both answers [together] have a probability below 0.2.",),
)

MINIMAL_SET = MinimalSet(
    request=FindMinimalSet(MEASURE, (4133, 7, 9), 0.5, 8, (SISTER,), 256, 0.5, 20),
    slope=True,
    baseline=0.25,
    ablated=0.109375,
    share=0.5625,
    reached=True,
    members=(SetMember(4133, (" women", "\n", "[red]"), 0.5, 0.0625), SetMember(7, (), 0.5625, 0.5)),
    n_tried=17,
    facts_kept=0.96875,
    kl=0.0078125,
    control_shares=tuple(n / 256 for n in range(-4, 16)),
    dtype="float32",
    warnings=("Something [to know].",),
)

CARD = msgspec.structs.replace(
    DESCRIBED,
    histogram=(Bin(0.5, 1.0, 100, 0), Bin(1.0, 2.0, 20, 1), Bin(2.0, 4.0, 0, 0), Bin(4.0, 8.0, 3, 4)),
    prompt_count=5,
    neighbours=(Neighbour(7, 0.75, (" woman", "[i]")), Neighbour(8, 0.5, ())),
    antipodes=(Neighbour(9, -0.25, (" man",)),),
    co_active=(CoActive(11, 3, 0.375, (" girl",)),),
    effect=Effect("female", "male", 2, True, 0.25, 0.125),
)


def instead(session, *results):
    """The session with these results, of one kind, in place of those it has of that kind."""
    kind = type(results[0])
    place = session.results.index(session.of(kind)[0])
    others = [result for result in session.results if not isinstance(result, kind)]
    return msgspec.structs.replace(session, results=(*others[:place], *results, *others[place:]))


def whole_session():
    """A session with all there can be to one, its workspace on one feature."""
    found = sessions.new(LOAD, LOADED)
    for result in (RANKING, GENERATED, ARMS, PROBES, ATTRIBUTION, MINIMAL_SET):
        found = sessions.add(found, result, PROMPT_SET)
    work = sessions.Workspace(
        msgspec.structs.replace(PROMPT_SET, probes=(PROBE, *MEASURE.probes), settings={"scale": 0.5}),
        question=NEGATIVE.text,
        edits=(sessions.EditSlot(3), sessions.EditSlot(5, 2.0, "set", "last", absolute=7.25, on=False)),
        pinned=(4133, 7),
        labels={4133: "women"},
        feature=7,
        sampling=Sampling(8, 0.5, 3),
    )
    return msgspec.structs.replace(found, workspace=work)
