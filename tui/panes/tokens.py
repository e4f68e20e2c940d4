"""The prompts as tokens, coloured by one feature's activation, and the features of the token under the cursor."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.records import Prompt, Shown, TokenFeatures
from engine.records.words.features import feature_in_words, tokens_in_words
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from engine.records.words.shades import step_of
from tui.services.context import Context
from tui.widgets.colours import MASKED
from tui.widgets.token_layout import Passage
from tui.widgets.token_text import TokenText

NOTHING = """\
Here you read one feature on your prompts, token by token.

r ranks the features by how well they tell your prompts apart, # looks one up by its number."""


class TokensPane(Vertical):
    """Pane 2: the prompts' tokens, shaded by the activation of the feature that `show` was given."""

    DEFAULT_CSS = """
    TokensPane {
        & TokenText { height: 1fr; }
        & #token-legend { height: 1; color: $text-muted; }
        & #token-features-title, & #token-features { display: none; }
        & #token-features-title { height: 1; background: $boost; }
        & #token-features {
            height: auto; max-height: 9; text-wrap: nowrap; text-overflow: ellipsis; background: $surface;
        }
        &.-listing #token-features-title, &.-listing #token-features { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "strongest(1)", "Next", id="tokens.next", tooltip="To the strongest token, then on"),
        Binding("N", "strongest(-1)", "Back", show=False, id="tokens.previous", tooltip="To the stronger one before"),
        Binding("t", "top", "Features", id="tokens.top", tooltip="The features that fire most on this token"),
        Binding("full_stop", "whitespace", "White space", show=False, key_display=".", id="tokens.whitespace",
                tooltip="Show white space and line breaks"),
    ]  # fmt: skip
    HELP = """\
The brighter a token, the stronger the feature fires on it; the legend ends at its maximum on these prompts and on
neutral text. Dimmed tokens do not count: the leading token, the chat template, attention sinks. t (or enter) lists the
features of the token under the cursor: enter shows one, p pins it, space ablates it, escape closes the list."""

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._shown: Shown | None = None
        self._jump = 0

    def compose(self) -> ComposeResult:
        yield TokenText(id="token-text", empty_text=NOTHING)
        yield Static(id="token-legend", markup=False)
        yield Static(id="token-features-title", markup=False)
        yield OptionList(id="token-features", markup=False)

    def on_mount(self) -> None:
        """Set the title; redraw the legend when the theme changes."""
        self.border_title = "2 Tokens"
        self.app.theme_changed_signal.subscribe(self, lambda _: self._show_legend())

    @property
    def text(self) -> TokenText:
        return self.query_one(TokenText)

    def show(self, shown: Shown) -> None:
        """Show a feature's activations on the prompts, positive ones first."""
        n_positive = len(self.context.study.work.prompts.positive)
        label, tokens = self.context.labels.get(shown.feature, ""), self.context.tokens_of(shown.feature)
        if self._shown is None or self._shown.feature != shown.feature:
            self._jump = 0
            self.close_list()
        self._shown = shown
        self.text.show(
            [
                Passage(
                    tokens=fed.tokens,
                    shades=tuple(
                        step_of(value, shown.maximum) if counts else MASKED
                        for value, counts in zip(row, fed.rank_mask, strict=True)
                    ),
                    prefix="+ " if index < n_positive else "− ",
                    prefix_style="positive" if index < n_positive else "negative",
                )
                for index, (fed, row) in enumerate(zip(shown.prompts, shown.activations, strict=True))
            ]
        )
        if self.text.cursor is not None and self._is_masked(*self.text.cursor):
            self._to_first_counted()
        self.border_title = Text(f"2 Tokens · {feature_in_words(shown.feature, label, tokens)}")
        self.border_subtitle = f"max {shown.maximum:.2f}" if self._by_strength() else "silent on these prompts"
        self._show_legend()

    def _is_masked(self, passage: int, token: int) -> bool:
        return self._shown is not None and not self._shown.prompts[passage].rank_mask[token]

    def _to_first_counted(self) -> None:
        """Move the cursor to its prompt's first token that counts for ranking."""
        passage = self.text.cursor[0] if self.text.cursor else 0
        mask = self._shown.prompts[passage].rank_mask if self._shown else ()
        if any(mask):
            self.text.move_to(passage, mask.index(True))

    def clear(self) -> None:
        """Return to the empty state."""
        self._shown = None
        self.text.clear()
        self.border_title, self.border_subtitle = "2 Tokens", ""
        self.close_list()
        self.query_one("#token-legend", Static).update("")

    def _at_cursor(self) -> tuple[str, float, bool] | None:
        """Return token, activation and whether it counts for ranking, under the cursor."""
        if self._shown is None or self.text.cursor is None:
            return None
        passage, token = self.text.cursor
        fed = self._shown.prompts[passage]
        return fed.tokens[token], self._shown.activations[passage][token], fed.rank_mask[token]

    @on(TokenText.CursorMoved)
    def _show_legend(self) -> None:
        here = self._at_cursor()
        if self._shown is None or here is None:
            return
        token, value, counts = here
        number = f"{value + 0.0:.2f}" if counts else "masked"
        here_in_words = Text(f"“{visible(token)}” {number}", no_wrap=True)
        self.query_one("#token-legend", Static).update(
            here_in_words.append("   ").append_text(self.text.legend(self._shown.maximum))
        )

    def go_to_prompt(self, index: int) -> None:
        """Move the cursor to a prompt's first counted token, unless it is in that prompt already."""
        if self._shown is None or not 0 <= index < len(self._shown.prompts):
            return
        if self.text.cursor is None or self.text.cursor[0] != index:
            mask = self._shown.prompts[index].rank_mask
            self.text.move_to(index, mask.index(True) if any(mask) else 0)

    # ---- the strongest tokens

    def action_strongest(self, step: int) -> None:
        """Go to the strongest token, then to the next strongest; a step of -1 goes back."""
        places = self._by_strength()
        if not places:
            self.notify("This feature fires on none of these prompts' counted tokens.")
            return
        _, passage, token = places[self._jump % len(places)] if step > 0 else places[(self._jump - 2) % len(places)]
        self._jump += step
        self.text.focus()
        self.text.move_to(passage, token)

    def _by_strength(self) -> list[tuple[float, int, int]]:
        """Return (activation, passage, token) of every counted token on which the feature fires, strongest first."""
        if self._shown is None:
            return []
        places = [
            (value, passage, token)
            for passage, (fed, row) in enumerate(zip(self._shown.prompts, self._shown.activations, strict=True))
            for token, (value, counts) in enumerate(zip(row, fed.rank_mask, strict=True))
            if value > 0 and counts
        ]
        return sorted(places, key=lambda place: (-place[0], place[1:]))

    def action_whitespace(self) -> None:
        self.text.visible_whitespace = not self.text.visible_whitespace

    # ---- the features of a token

    @on(TokenText.TokenChosen)
    def action_top(self) -> None:
        """Ask for the features of the token under the cursor."""
        if self._shown is None or self.text.cursor is None:
            self.notify("Rank the features first: r")
            return
        passage, token = self.text.cursor
        fed = self._shown.prompts[passage]
        from tui.commands import features

        features.features_at(self.context, Prompt(fed.text, fed.format), token)

    def show_features(self, features: TokenFeatures) -> None:
        """Show the list of a token's features."""
        options = self.query_one("#token-features", OptionList)
        options.set_options(
            Option(
                Text.assemble(
                    (f"{at.feature:>6}", "bold"),
                    f"  {at.activation:6.2f}  ",
                    self.context.name_of(at.feature) or tokens_in_words(at.tokens),
                ),
                id=str(at.feature),
            )
            for at in features.features
        )  # fmt: skip
        if not features.features:
            self.notify(f"No feature fires on “{visible(features.token)}”.")
            return
        title = f"{features.n_active} features fire on “{visible(features.token)}” · escape closes"
        self.query_one("#token-features-title", Static).update(Text(title))
        self.add_class("-listing")
        options.highlighted = 0
        options.focus()

    def close_list(self) -> None:
        """Close the list of a token's features."""
        had_focus = self.query_one("#token-features", OptionList).has_focus
        self.remove_class("-listing")
        if had_focus:
            self.text.focus()

    def listed_feature(self) -> int | None:
        """Return the feature under the list's cursor; None if the list lacks the focus."""
        options = self.query_one("#token-features", OptionList)
        if not options.has_focus or options.highlighted is None:
            return None
        return int(options.get_option_at_index(options.highlighted).id or 0)

    def key_escape(self) -> None:
        self.close_list()

    @on(OptionList.OptionSelected, "#token-features")
    def choose(self, event: OptionList.OptionSelected) -> None:
        """Jump to the feature chosen in the list, and close it."""
        event.stop()
        from tui.commands import features

        features.jump_to(self.context, int(event.option.id or 0))
        self.close_list()
