"""The main screen's part about edits: routes what the list of edits posts and keys ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from textual import on

from engine.loading.demo import feature_lists
from engine.records import NO_FEATURE
from tui.panes.edits import EditsPane
from tui.panes.leaderboard import LeaderboardPane
from tui.panes.tokens import TokensPane
from tui.workbench import Workbench

if TYPE_CHECKING:
    from tui.commands.edits import EditFlows


class EditScreen(Workbench):
    """What is done to the features at hand."""

    @cached_property
    def edit_flows(self) -> EditFlows:
        """Dialogs about edits."""
        from tui.commands.edits import EditFlows

        return EditFlows(self)

    # ---- what an action is about

    def feature_at_hand(self) -> int | None:
        """The feature an action is about: under the cursor of the pane with the focus, else the one being read."""
        pane = self.focused_pane()
        if isinstance(pane, EditsPane):
            return pane.feature()
        if isinstance(pane, TokensPane):
            listed = pane.listed_feature()
            return self.study.work.feature if listed is None else listed
        if isinstance(pane, LeaderboardPane):
            return pane.feature() if self.study.ranking() is not None else self.study.work.feature
        return self.study.work.feature

    def _with_feature(self, action: Callable[[int], object]) -> None:
        feature = self.feature_at_hand()
        if self._listed_line() == NO_FEATURE:
            self.notify("This line is about all features.")
        elif feature is None:
            self.notify("No feature is chosen yet: r ranks them, # looks one up.")
        else:
            action(feature)

    # ---- edits

    def _listed_line(self) -> int | None:
        """What the line under the cursor of the list of edits is about; None where another pane has the focus."""
        return self.edits.line() if isinstance(self.focused_pane(), EditsPane) else None

    def _with_edit(self, action: Callable[[int], object]) -> None:
        """Does something to the edit at hand: in the list of edits the one under the cursor, else a feature's."""
        if self._listed_line() == NO_FEATURE:
            action(NO_FEATURE)
        else:
            self._with_feature(action)

    def action_toggle_edit(self) -> None:
        """Ablates, or switches the edit."""

        def toggle(feature: int) -> None:
            self.study.toggle_edit(feature)
            self.edits_changed()

        self._with_edit(toggle)

    def action_edit(self) -> None:
        """Kind, strength and place."""
        self._with_edit(self.edit_flows.ask_edit)

    def action_strength(self, steps: int) -> None:
        """Another strength."""

        def step(feature: int) -> None:
            if feature == NO_FEATURE:
                self.notify("A reconstruction has no strength; space switches it.")
                return
            self.study.step_edit(feature, steps)
            self.edits_changed()

        self._with_edit(step)

    def action_publish(self) -> None:
        """The edit that the prompt set's study made."""
        self._with_feature(self.edit_flows.publish)

    def action_try(self) -> None:
        """Several strengths side by side."""
        self._with_edit(self.edit_flows.ask_strengths)

    @on(EditsPane.MoveWanted)
    def move_edit(self, event: EditsPane.MoveWanted) -> None:
        """An edit acts elsewhere."""
        self.study.move_edit(event.feature)
        self.edits_changed()

    @on(EditsPane.ReconstructWanted)
    def switch_reconstruction(self) -> None:
        """The SAE's error is dropped, or not."""
        self.study.toggle_reconstruction()
        self.edits_changed()

    @on(EditsPane.ToggleWanted)
    def toggle_listed(self, event: EditsPane.ToggleWanted) -> None:
        """Enter or a click in the list of edits."""
        self.study.toggle_edit(event.feature)
        self.edits_changed()

    @on(EditsPane.RemoveWanted)
    def remove_edit(self, event: EditsPane.RemoveWanted) -> None:
        """An edit leaves the list."""
        self.study.remove_edit(event.feature)
        self.edits_changed()

    @on(EditsPane.ClearWanted)
    def clear_edits(self) -> None:
        """All edits leave the list."""
        self.study.clear_edits()
        self.edits_changed()

    @on(EditsPane.AllWanted)
    def switch_all(self) -> None:
        """All edits off, or on."""
        self.study.switch_all_edits()
        self.edits_changed()

    def ablate_list(self) -> None:
        """Ablates the demo SAE's packaged list."""
        self.study.add_edits(feature_lists.read("gender"))
        self.edits_changed()
        if self.study.ranking() is not None and not self.study.ranking_is_stale():
            self.work.rank()  # so that the list says what they fire on

    def edits_changed(self) -> None:
        """Shows the edits and puts the running text under them."""
        self.show_edits()
        self.work.edits_changed()
        self.show_generation_staleness()
