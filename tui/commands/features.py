"""Commands of features: rank, show on the prompts, jump, pin, label, note, and a feature's page."""

from __future__ import annotations

from collections.abc import Callable

from engine.files import paths
from engine.records import NO_FEATURE, FeaturesAt, Prompt, Rank, Ranking, Show, Shown, TokenFeatures
from engine.records.features import BY_NAME
from tui.screens.feature_page import FeaturePage, address_of
from tui.services.context import Context
from tui.widgets.dialogs import AskNote, AskText
from tui.widgets.fields import is_whole

ROWS = 200
"""How many features the leaderboard holds; any other feature is reached by its number."""

LAST_FEATURE = 2**31
"""The largest number that is accepted while no SAE is loaded; no SAE has so many features."""


# ---- ranking


def rank(context: Context, by: str | None = None, weight: bool | None = None) -> None:
    """Rank all features, sorted by the column `by`; None keeps the last ranking's column.

    `weight` says whether rare features count more; None keeps the last ranking's choice.
    """
    if not context.tasks.may_ask():
        return
    study = context.study
    before = study.ranking()
    column = by or (before.by if before is not None else "score")
    if not BY_NAME[column].has_prompts(len(study.work.prompts.positive), len(study.work.prompts.negative)):
        column = "score"
    if weight is None:
        weight = before.density_weight if before is not None else True
    request = Rank(study.work.prompts, by=column, top=ROWS, density_weight=weight, also=_rows_wanted(context))

    async def task() -> None:
        context.autosave.keep_result(await context.tasks.ask(request, Ranking))

    context.tasks.run("rank", task)


def _rows_wanted(context: Context) -> tuple[int, ...]:
    """Return the features that get a row whatever their rank: pinned, edited and chosen ones."""
    work = context.study.work
    edited = [slot.feature for slot in work.edits if slot.feature != NO_FEATURE]
    chosen = [] if work.feature is None else [work.feature]
    return tuple(dict.fromkeys([*work.pinned, *edited, *chosen]))


def rank_prompts(context: Context) -> None:
    """Rank the features on the current prompts, including what is still being typed over one."""
    context.desk.commit_typing()
    prompts = context.study.work.prompts
    if not prompts.positive or not prompts.negative:
        missing = "positive" if not prompts.positive else "negative"
        context.desk.report(
            f"There are no {missing} prompts.", "A contrast needs both: a in the prompts pane adds one."
        )
        return
    context.desk.bring("features")
    rank(context)


# ---- reading


def read(context: Context, feature: int) -> None:
    """Choose a feature and show it on the prompts."""
    context.study.choose_feature(feature)
    show_chosen(context)


def show_chosen(context: Context) -> None:
    """Show the activations of the chosen feature on the prompts as they are now."""
    study = context.study
    feature = study.work.feature
    prompts = (*study.work.prompts.positive, *study.work.prompts.negative)
    if feature is None or not context.tasks.ready or not prompts:
        return
    request = Show(feature, prompts)

    async def task() -> None:
        context.desk.show_tokens(await context.tasks.ask(request, Shown))

    context.tasks.run("show", task)


def features_at(context: Context, prompt: Prompt, token: int) -> None:
    """List the features of one token."""
    if not context.tasks.may_ask():
        return

    async def task() -> None:
        context.desk.show_token_features(await context.tasks.ask(FeaturesAt(prompt, token), TokenFeatures))

    context.tasks.run("features at", task)


def jump_to(context: Context, feature: int) -> None:
    """Choose any feature and show it; one without a row gets one by ranking again, unless the prompts have changed."""
    read(context, feature)
    if context.desk.pane_at_hand() == "prompts":
        context.desk.action_pane("tokens")  # where keys act on the feature
    study = context.study
    if not context.desk.go_to_feature(feature) and study.ranking() is not None and not study.ranking_is_stale():
        context.wanted = feature
        rank(context)


def ask_feature(context: Context) -> None:
    """Ask for a feature's number and jump to it."""
    loaded = context.study.loaded
    last = loaded.d_sae - 1 if loaded else LAST_FEATURE

    def check(text: str) -> str:
        if not text.strip().isdecimal():
            return "A feature is a number."
        return "" if is_whole(text, 0, last) else f"This SAE has features 0 to {last:,}."

    def go(text: str | None) -> None:
        if text is not None:
            jump_to(context, int(text))

    context.desk.open(AskText("Jump to feature", "", "its number", check=check), go)


# ---- pages, pins


def describe(context: Context, feature: int, order: list[int] | None = None) -> None:
    """Open a feature's page; `order` holds the features that ← and → go through, by default the leaderboard's."""
    features = order or context.desk.ranked_features()
    page = FeaturePage(
        context,
        feature,
        features if feature in features else [feature, *features],
        label=lambda shown, then: ask_label(context, shown, then),
        note=lambda shown, then: ask_note(context, shown, then),
        copy=lambda shown: copy_address(context, shown),
    )
    context.desk.open(page)


def pin(context: Context, feature: int) -> None:
    """Pin a feature to the leaderboard, or unpin it."""
    context.study.toggle_pin(feature)


# ---- labels, notes, copying


def ask_label(context: Context, feature: int, then: Callable[[], object] = lambda: None) -> None:
    """Ask for a feature's label; `then` is called once it is kept."""

    def keep(text: str | None) -> None:
        if text is not None:
            context.notebook.set_label(feature, text.strip())
            context.study.set_label(feature, text)
            then()

    before = context.labels.get(feature, "")
    hint = "enter: keep, for every session with this SAE · empty: no label · escape: leave"
    context.desk.open(AskText(f"Label of feature {feature}", before, "what it means to you", hint), keep)


def ask_note(context: Context, feature: int, then: Callable[[], object]) -> None:
    """Ask for a note on a feature; `then` is called once it is kept."""

    def keep(text: str | None) -> None:
        if text is not None:
            context.notebook.set_note(feature, text.strip())
            then()

    context.desk.open(AskNote(f"Note on feature {feature}", context.notebook.note(feature)), keep)


def import_explanations(context: Context) -> None:
    """Ask for an export of Neuronpedia, and import its explanations of this SAE's features."""

    def read(path: str | None) -> None:
        if path is not None:
            context.notebook.import_explanations(paths.typed(path))

    def check(path: str) -> str:
        exists = path.strip() and not paths.problem(path) and paths.typed(path).exists()
        return "" if exists else paths.problem(path) or "There is no such file or folder."

    hint = "a .jsonl or .jsonl.gz file, or the folder of them, with lines of index and description"
    context.desk.open(AskText("Import explanations", "", "path", hint, check), read)


def copy_address(context: Context, feature: int) -> None:
    """Copy a feature's address where it has one, else its number."""
    text = address_of(context.study.loaded, feature) or str(feature)
    context.desk.copy(text)
    context.desk.notify(f"Copied: {text}")
