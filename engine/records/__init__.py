"""The records that cross the seam between a front end and the engine: requests, events and results.

They are frozen, typed, and made of plain numbers and strings only, so that the in-process client, the engine process
and the session file can all use them. No functions, no torch. Activations are in the SAE's own units: after its input
normalisation, before its output is scaled back.
"""

from engine.records.attribution import (
    Attribute,
    AttributedFeature,
    Attribution,
    Causes,
    Effect,
    FindMinimalSet,
    Measure,
    MinimalSet,
    ProbeMeasured,
    SetMember,
)
from engine.records.base import Format, Record
from engine.records.edits import NO_FEATURE, Edit, EditKind, Positions
from engine.records.events import Cancelled, Event, Failed, Finished, MemoryLeft, Progress, ResultValue, TokenStep
from engine.records.features import (
    RANK_COLUMNS,
    RANKED_BY,
    Bin,
    CoActive,
    Describe,
    Described,
    FeatureAt,
    FeatureRow,
    FeaturesAt,
    Neighbour,
    Pool,
    Rank,
    Ranking,
    Show,
    Shown,
    StrongToken,
    TokenFeatures,
    TokenLogit,
)
from engine.records.pair import Check, Diagnosis, Doctor, Load, Loaded
from engine.records.prompts import Answer, FedPrompt, Probe, Prompt, PromptSet
from engine.records.replays import ArmReplay, Replay, Replayable, Replayed
from engine.records.texts import (
    AnswerRow,
    AnswersScored,
    Arm,
    EditsFrom,
    Generate,
    Generated,
    OtherArm,
    ProbeRow,
    ProbeTable,
    Reply,
    RunProbes,
    Sampling,
    ScoreAnswers,
)

Request = (
    Load
    | Rank
    | Show
    | Describe
    | FeaturesAt
    | Generate
    | ScoreAnswers
    | RunProbes
    | Doctor
    | Attribute
    | FindMinimalSet
    | Replay
)

__all__ = [
    "NO_FEATURE",
    "RANKED_BY",
    "RANK_COLUMNS",
    "Answer",
    "AnswerRow",
    "AnswersScored",
    "Arm",
    "ArmReplay",
    "Attribute",
    "AttributedFeature",
    "Attribution",
    "Bin",
    "Cancelled",
    "Causes",
    "Check",
    "CoActive",
    "Describe",
    "Described",
    "Diagnosis",
    "Doctor",
    "Edit",
    "EditKind",
    "EditsFrom",
    "Effect",
    "Event",
    "Failed",
    "FeatureAt",
    "FeatureRow",
    "FeaturesAt",
    "FedPrompt",
    "FindMinimalSet",
    "Finished",
    "Format",
    "Generate",
    "Generated",
    "Load",
    "Loaded",
    "Measure",
    "MemoryLeft",
    "MinimalSet",
    "Neighbour",
    "OtherArm",
    "Pool",
    "Positions",
    "Probe",
    "ProbeMeasured",
    "ProbeRow",
    "ProbeTable",
    "Progress",
    "Prompt",
    "PromptSet",
    "Rank",
    "Ranking",
    "Record",
    "Replay",
    "Replayable",
    "Replayed",
    "Reply",
    "Request",
    "ResultValue",
    "RunProbes",
    "Sampling",
    "ScoreAnswers",
    "SetMember",
    "Show",
    "Shown",
    "StrongToken",
    "TokenFeatures",
    "TokenLogit",
    "TokenStep",
]
