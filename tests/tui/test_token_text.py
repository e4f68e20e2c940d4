import asyncio
import random
from functools import wraps
from itertools import pairwise

import pytest
from rich.cells import cell_len
from textual.app import App
from textual.color import Color, rgb_to_lab
from textual.theme import BUILTIN_THEMES

from engine.records.words.safe_text import safe
from engine.records.words.shades import STEPS, step_of
from tui.widgets.colours import DIFFERS, MASKED, TURNED_DIFFERS, gradient
from tui.widgets.token_layout import Layout, Passage
from tui.widgets.token_text import TokenText

POOL = [
    *("The", " cat", " sat", ",", " on", " extraordinarily", "-", "x" * 30, "two words"),
    *("\n", "\n\n", "", " ", "    ", "\t", " a\n", "\r\n"),
    *(
        "世界",
        "你",
        " 世",
        "é",
        "e\u0301",
        "\u0301",
        "👩\u200d🚀",
        "\u200d",
        "👍🏽",
        "❤\ufe0f",
        "\ufe0f",
        "1\ufe0f\u20e3",
    ),
    *("\x1b[31m", "\u202e", "\u200b"),
]


def on_screen(size=(30, 8), **options):
    """Runs an async test of (app, widget, pilot) on a TokenText that fills a screen."""

    def decorate(test):
        @wraps(test)
        def run():
            async def main():
                app = Screen(**options)
                async with app.run_test(size=size) as pilot:
                    await test(app, app.query_one(TokenText), pilot)

            asyncio.run(main())

        del run.__wrapped__  # pytest would take its parameters for fixtures
        return run

    return decorate


class Screen(App):
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, **options):
        super().__init__()
        self.options, self.heard = options, []

    def compose(self):
        yield TokenText(**self.options)

    def on_mount(self):
        self.query_one(TokenText).focus()

    def on_token_text_cursor_moved(self, event):
        self.heard.append(("moved", event.passage, event.token))

    def on_token_text_token_chosen(self, event):
        self.heard.append(("chosen", event.passage, event.token))


def plain(*texts, **more):
    return [Passage(tuple(tokens), (0,) * len(tokens), **more) for tokens in texts]


def drawn(widget):
    """Every line as it is painted, the part beyond the last piece cut off."""
    return [widget._paint(row).text.rstrip() for row in range(len(widget._placed.lines))]


def lines_of(layout):
    return [(line.passage, line.first, line.indent, line.pieces) for line in layout.lines]


def random_tokens(rng, count):
    return [rng.choice(POOL) for _ in range(count)]


# ---- the layout


def laid(tokens, width, **options):
    layout = Layout(width, **options)
    layout.add(tokens)
    return ["".join(piece.text for piece in line.pieces) for line in layout.lines]


def test_words_move_whole():
    # " wor" + "ld" is one word, and leaves its space behind when it moves
    assert laid(["Hello", " wor", "ld", ",", " yes"], 10) == ["Hello", "world, yes"]
    assert laid(["Hello", " wor", "ld"], 11) == ["Hello world"]
    assert laid(["a", "  bb"], 4) == ["a", "  bb"]


def test_long_words_are_broken_by_cell():
    assert laid(["ab", " ", "cdefgh", "ijkl"], 5) == ["ab", " cdef", "ghijk", "l"]
    assert laid(["世界你好"], 5) == ["世界", "你好"]


def test_wide_text_is_broken_anywhere():
    assert laid(["ab", "世", "界", "你", "好"], 6) == ["ab世界", "你好"]


def test_line_breaks():
    assert laid(["a", "\n", "\n", "b", "\n"], 5) == ["a ", " ", "b "]
    assert laid(["a", "\n", "\n", "b", "\n"], 5, whitespace=True) == ["a⏎", "⏎", "b⏎"]
    assert laid(["abc\ndef"], 3) == ["abc", "def"]  # none where the line is full


def test_whitespace_can_be_seen():
    assert laid(["\ta", " b"], 20) == ["    a b"]
    assert laid(["\ta", " b"], 20, whitespace=True) == ["⇥a·b"]


def test_indices_and_cells():
    layout = Layout(8)
    layout.add(["ab", "", "世界", " e\u0301e", "\n", "\u0301", "f"], indent=2)
    layout.add(["g"], indent=2)
    # "  ab世界 " / "  e´e" / "  f"
    assert [layout.row(0, token) for token in range(7)] == [0, -1, 0, 1, 1, 2, 2]
    assert [layout.nearest(0, x) for x in range(9)] == [(0, 0)] * 4 + [(0, 2)] * 5
    assert layout.nearest(1, 4) == (0, 4) and layout.nearest(1, 3) == (0, 3)
    assert layout.nearest(3, 0) == (1, 0)
    assert layout.neighbour(0, 0, 1) == (0, 2) and layout.neighbour(0, 2, -1) == (0, 0)
    assert layout.neighbour(0, 6, 1) == (1, 0) and layout.neighbour(1, 0, -1) == (0, 6)
    assert layout.neighbour(1, 0, 1) is None and layout.first == (0, 0) and layout.last == (1, 0)
    assert layout.close_to(0, 1) == (0, 2) and layout.close_to(7, 7) == (1, 0)


@pytest.mark.parametrize("seed", range(60))
def test_streamed_text_is_laid_out_like_the_whole(seed):
    rng = random.Random(seed)
    tokens, width = random_tokens(rng, 120), rng.randint(2, 40)
    options = {"whitespace": rng.random() < 0.3, "spaced": True}
    indent = rng.choice([0, 2])
    whole, streamed = Layout(width, **options), Layout(width, **options)
    whole.add(["first"], indent)
    whole.add(tokens, indent)
    streamed.add(["first"], indent)
    streamed.add([], indent)
    begin = 0
    while begin < len(tokens):
        end = begin + rng.randint(1, 9)
        before = lines_of(streamed)
        before = [(*line[:3], list(line[3])) for line in before]
        changed = streamed.extend(tokens[begin:end])
        assert changed == len(before) - 1
        assert lines_of(streamed)[:changed] == before[:changed]
        begin = end
    assert lines_of(streamed) == lines_of(whole)
    assert streamed._rows == whole._rows


@pytest.mark.parametrize("seed", range(60))
def test_pieces_are_as_wide_as_they_say(seed):
    rng = random.Random(seed)
    tokens, width = random_tokens(rng, 150), rng.randint(4, 60)
    layout = Layout(width)
    layout.add(tokens, indent=2)
    for number, line in enumerate(layout.lines):
        x = line.indent
        for piece in line.pieces:
            assert piece.x == x and piece.width == cell_len(piece.text)
            x += piece.width
        assert x <= width
        # nor does it change a width that segments are merged
        assert cell_len("".join(piece.text for piece in line.pieces)) == x - line.indent
        for piece in line.pieces:
            assert number in layout.rows(0, piece.token)
    for token in range(len(tokens)):
        first = [n for n, line in enumerate(layout.lines) if any(p.token == token for p in line.pieces)][:1]
        assert layout.row(0, token) == (first[0] if first else -1)


def test_nothing_is_lost_but_the_space_before_a_moved_word():
    rng = random.Random(7)
    tokens = [rng.choice(["ab", " cde", " f", "世", "gh", " ijklmnopqrstuvw", "."]) for _ in range(400)]
    text = "".join(laid(tokens, 13))
    assert text.replace(" ", "") == "".join(tokens).replace(" ", "")


# ---- what may reach the terminal


@on_screen()
async def test_control_characters_never_reach_a_segment(app, widget, pilot):
    tokens = (*map(chr, range(0x2100)), "\x1b]0;title\x07", "\x9b31m", "\ud83d", "\u202eevil", "a\nb")
    for whitespace in (False, True):
        widget.visible_whitespace = whitespace
        widget.show([Passage(tokens, (3,) * len(tokens), prefix="\x1b+ ")])
        await pilot.pause()
        text = "".join(segment.text for row in range(len(widget._placed.lines)) for segment in widget._paint(row))
        assert text == safe(text) and "\n" not in text and "\t" not in text


# ---- the widget


@on_screen(size=(12, 6))
async def test_prefixes_and_passages(app, widget, pilot):
    widget.show([
        Passage(("one", " two", " three"), (0, 0, 0), "+ ", "positive"),
        Passage((), (), "− ", "negative"),
    ])  # fmt: skip
    assert drawn(widget) == ["+ one two", "  three", "−"]
    segment = widget._paint(0)._segments[0]
    assert segment.text == "+ " and segment.style.bold


@on_screen(size=(12, 6), spaced=True)
async def test_blank_line_between_passages(app, widget, pilot):
    widget.show(plain(["a"], ["b"]))
    assert drawn(widget) == ["a", "", "b"]
    await pilot.press("down")
    assert widget.cursor == (1, 0)
    await pilot.press("left")
    assert widget.cursor == (0, 0)


@on_screen(size=(20, 6), empty_text="Add a prompt that shows the behaviour: a")
async def test_empty(app, widget, pilot):
    assert drawn(widget) == ["Add a prompt that", "shows the", "behaviour: a"]
    assert all(segment.style.dim for segment in widget._paint(0) if segment.text.strip())
    await pilot.press("right", "down", "enter", "ctrl+end")
    await pilot.click(offset=(1, 0))
    assert widget.cursor is None and app.heard == []
    widget.append(["x"], [0])
    assert drawn(widget) == ["x"]
    widget.clear()
    widget.empty_text = "None"
    assert drawn(widget) == ["None"] and widget.cursor is None


@pytest.mark.parametrize("seed", range(5))
def test_append_is_show_of_the_whole(seed):
    rng = random.Random(seed)

    @on_screen(size=(25, 10), show_cursor=False)
    async def test(app, widget, pilot):
        tokens = random_tokens(rng, 200)
        shades = [rng.randint(TURNED_DIFFERS, STEPS) for _ in tokens]
        widget.show(plain(["Prompt"], ["Answer", ":"]))
        begin = 0
        while begin < len(tokens):
            end = begin + rng.randint(1, 20)
            widget.append(tokens[begin:end], shades[begin:end])
            if rng.random() < 0.5:
                await pilot.pause()
            begin = end
        streamed = [widget.render_line(y) for y in range(10)]
        assert widget.scroll_y == widget.max_scroll_y > 0
        widget.clear()
        widget.show([*plain(["Prompt"]), Passage(("Answer", ":", *tokens), (0, 0, *shades))])
        widget.scroll_end(animate=False)
        await pilot.pause()
        assert [widget.render_line(y) for y in range(10)] == streamed

    test()


@on_screen()
async def test_append_gives_the_cursor_its_first_token(app, widget, pilot):
    widget.show(plain([]))
    assert widget.cursor is None
    widget.append(["", "a"], [0, 0])
    assert widget.cursor == (0, 1)


@on_screen(size=(25, 10), show_cursor=False)
async def test_append_lays_out_no_other_widget(app, widget, pilot):
    widget.show([Passage((" word",) * 60, (0,) * 60)])
    widget.action_whole(1)
    await pilot.pause()
    layouts = []
    app.screen.screen_layout_refresh_signal.subscribe(widget, layouts.append)
    for _ in range(3):
        widget.append([" word"] * 20, [0] * 20)
        await pilot.pause()
    assert layouts == []
    lines = len(widget._placed.lines)
    assert widget.virtual_size.height == widget.vertical_scrollbar.window_virtual_size == lines
    assert widget.scroll_y == widget.max_scroll_y == lines - 10
    widget.styles.height = "auto"
    await pilot.pause()
    layouts.clear()
    widget.append([" word"] * 20, [0] * 20)
    await pilot.pause()
    assert layouts != []


@on_screen(size=(25, 10))
async def test_a_cursor_at_the_end_stays_there_until_it_is_moved(app, widget, pilot):
    widget.show(plain(["a", " b"]))
    widget.move_to(0, 1)
    widget.append([" c"] * 100, [0] * 100)
    assert widget.cursor == (0, 101) and widget.scroll_target_y == widget.max_scroll_y
    widget.action_step(-1)
    widget.append([" d"] * 3, [0] * 3)
    assert widget.cursor == (0, 100)


@on_screen(size=(25, 10), show_cursor=False)
async def test_append_leaves_a_reader_alone(app, widget, pilot):
    widget.append([" word"] * 200, [0] * 200)
    widget.scroll_end(animate=False)
    await pilot.pause()
    await pilot.press("up", "up")
    at = widget.scroll_y
    widget.append([" word"] * 50, [0] * 50)
    await pilot.pause()
    assert widget.scroll_y == at
    await pilot.press("end")
    widget.append([" word"] * 50, [0] * 50)
    await pilot.pause()
    assert widget.scroll_y == widget.max_scroll_y > at


@on_screen()
async def test_new_shades_reuse_the_layout(app, widget, pilot):
    tokens = tuple(f" token{index}" for index in range(300))
    widget.show([Passage(tokens, (0,) * 300)])
    widget.move_to(0, 200)
    await pilot.pause()
    layout, scroll, before = widget._placed, widget.scroll_y, widget.render_line(2)
    widget.show([Passage(tokens, (9,) * 300)])
    await pilot.pause()
    assert widget._placed is layout and widget.cursor == (0, 200) and widget.scroll_y == scroll > 0
    assert widget.render_line(2) != before
    widget.show(plain(["other"]))
    assert widget.cursor == (0, 0) and widget.scroll_y == 0


@on_screen()
async def test_the_cursor_stays_in_a_passage_that_stays(app, widget, pilot):
    widget.show(plain(["a", "b", "c"]))
    widget.move_to(0, 2)
    widget.show(plain(["a", "b", "c"], ["d"]))
    assert widget.cursor == (0, 2)
    widget.show(plain(["a", "b"]))
    assert widget.cursor == (0, 0)
    widget.show([])
    assert widget.cursor is None


@on_screen(size=(13, 4))
async def test_keys(app, widget, pilot):
    # "one two" / "three 世界" / "" / "four"
    widget.show(plain(["one", "", " two", " three", " 世界", "\n", "\n"], ["four"]))
    assert drawn(widget) == ["one two", "three 世界", "", "four"]

    async def press(*keys):
        await pilot.press(*keys)
        return widget.cursor

    assert widget.cursor == (0, 0)
    assert await press("left") == (0, 0)
    assert await press("right") == (0, 2)
    assert await press("down") == (0, 3)  # the same column
    assert await press("end") == (0, 5)
    assert await press("down") == (0, 6)
    assert await press("up") == (0, 5)  # the column is kept across a short line
    assert await press("home") == (0, 3)
    assert await press("right") == (0, 4)
    assert await press("right", "right", "right") == (1, 0)
    assert await press("right") == (1, 0)
    assert await press("ctrl+home") == (0, 0)
    assert await press("ctrl+end") == (1, 0)
    assert await press("pageup") == (0, 0)
    assert await press("pagedown") == (1, 0)
    app.heard.clear()
    assert await press("left", "enter") == (0, 6)
    assert app.heard == [("moved", 0, 6), ("chosen", 0, 6)]


@on_screen(size=(6, 9))
async def test_down_leaves_a_token_of_several_lines(app, widget, pilot):
    widget.show(plain(["a", " bcdefghijklmnop", " q"]))
    await pilot.press("down")
    assert widget.cursor == (0, 1)
    await pilot.press("down")
    assert widget.cursor == (0, 2)


@on_screen(size=(30, 5), show_cursor=False)
async def test_without_a_cursor_the_keys_scroll(app, widget, pilot):
    widget.show(plain([" word"] * 300))
    for key, at in (("down", 1), ("pagedown", 5), ("up", 4), ("pageup", 0), ("end", widget.max_scroll_y), ("home", 0)):
        await pilot.press(key)
        await pilot.pause()
        assert widget.scroll_y == at, key
    await pilot.click(offset=(3, 1))
    await pilot.press("enter")
    assert widget.cursor is None and app.heard == []


@on_screen(size=(20, 5))
async def test_clicks(app, widget, pilot):
    widget.show(plain(["世界", " e\u0301t", "é", " b"], ["next"] * 30, prefix="+ "))
    for x, token in ((0, 0), (2, 0), (5, 0), (6, 1), (8, 1), (9, 2), (10, 3), (11, 3), (17, 3)):
        await pilot.click(offset=(x, 0))
        assert widget.cursor == (0, token), x
    app.heard.clear()
    await pilot.click(offset=(3, 0), times=2)
    assert app.heard == [("moved", 0, 0), ("chosen", 0, 0)]
    widget.scroll_to(y=3, animate=False)
    await pilot.pause()
    await pilot.click(offset=(2, 0))
    assert widget.cursor == widget._placed.nearest(3, 2) != (0, 0)


@on_screen(size=(20, 6))
async def test_in_a_frame(app, widget, pilot):
    widget.styles.border, widget.styles.padding = ("solid", "red"), (0, 1)
    widget.show(plain([" word"] * 30))
    await pilot.pause()
    rows = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    assert rows[1].startswith("│  word word word") and rows[-1].startswith("└")
    assert len(widget._placed.lines) == 10  # 15 cells: 20 less the frame, the padding and the scrollbar
    await pilot.click(offset=(8, 2))
    assert widget.cursor == (0, 4)
    await pilot.press("ctrl+end")
    await pilot.pause()
    rows = ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]
    assert widget.scroll_y == 6 and rows[4].startswith("│ word word word")


@on_screen()
async def test_a_click_below_the_text_does_nothing(app, widget, pilot):
    widget.show(plain(["a", " b"]))
    await pilot.click(offset=(2, 5))
    assert widget.cursor == (0, 0) and app.heard == []


@on_screen(size=(40, 6))
async def test_the_cursor_stays_in_view(app, widget, pilot):
    widget.show(plain([f" t{index}" for index in range(400)]))

    def in_view():
        row = widget._placed.row(*widget.cursor)
        return widget.scroll_y <= row < widget.scroll_y + widget.scrollable_content_region.height

    widget.move_to(0, 250)
    await pilot.pause()
    assert in_view()
    for size in ((20, 6), (80, 3), (33, 12)):
        await pilot.resize_terminal(*size)
        await pilot.pause()
        assert widget.cursor == (0, 250) and in_view(), size
    widget.visible_whitespace = True
    await pilot.pause()
    assert in_view()


@on_screen(size=(40, 6), show_cursor=False)
async def test_resize_keeps_the_end_or_the_place(app, widget, pilot):
    widget.append([f" t{index}" for index in range(400)], [0] * 400)
    await pilot.resize_terminal(30, 5)
    await pilot.pause()
    assert widget.scroll_y == 0
    widget.scroll_end(animate=False)
    await pilot.pause()
    await pilot.resize_terminal(25, 4)
    await pilot.pause()
    assert widget.scroll_y == widget.max_scroll_y
    widget.scroll_to(y=20, animate=False)
    await pilot.pause()
    top = widget._placed.nearest(20, 0)
    await pilot.resize_terminal(50, 4)
    await pilot.pause()
    assert widget._placed.row(*top) == widget.scroll_y


def test_shown_before_it_has_a_size():
    class Early(App):
        def compose(self):
            text = TokenText()
            text.show(plain(["", "a", " b"], ["c"]))
            text.append([" d"], [0])
            text.move_to(1, 1)
            yield text

    async def main():
        app = Early()
        async with app.run_test(size=(20, 4)):
            text = app.query_one(TokenText)
            assert drawn(text) == ["a b", "c d"] and text.cursor == (1, 1)

    asyncio.run(main())


@on_screen(size=(20, 10))
async def test_height_can_follow_the_text(app, widget, pilot):
    widget.styles.height = "auto"
    widget.show(plain([" word"] * 9))
    await pilot.pause()
    assert widget.size.height == len(widget._placed.lines) == 3
    assert not widget.show_vertical_scrollbar


# ---- colours


def test_steps():
    assert step_of(0, 5) == step_of(-1, 5) == step_of(1, 0) == step_of(float("nan"), 5) == 0
    assert step_of(0.001, 5) == 1 and step_of(5, 5) == step_of(9, 5) == STEPS
    steps = [step_of(value, 100) for value in range(1, 101)]
    assert steps == sorted(steps) and set(steps) == set(range(1, STEPS + 1))


def test_passages_check_their_shades():
    for shades in ((0,), (0, STEPS + 1), (0, TURNED_DIFFERS - 1)):
        with pytest.raises(ValueError):
            Passage(("a", "b"), shades)


@pytest.mark.parametrize("name", [name for name, theme in BUILTIN_THEMES.items() if not name.startswith("ansi")])
def test_lightness_carries_the_value(name):
    colours = BUILTIN_THEMES[name].to_color_system().generate()
    surface = Color.parse(colours["surface"])
    lightness = [rgb_to_lab(colour).L for colour in (surface, *gradient(surface, Color.parse(colours["accent"])))]
    steps = [after - before for before, after in pairwise(lightness)]
    sign = 1 if BUILTIN_THEMES[name].dark else -1
    assert all(sign * step > 1 for step in steps), steps
    assert abs(lightness[-1] - lightness[0]) > 45


@on_screen()
async def test_themes_recolour(app, widget, pilot):
    widget.show([Passage(("a", " b", " c", " d"), (STEPS, MASKED, DIFFERS, 0))])

    async def styles():
        await pilot.pause()
        return [segment.style for segment in widget.render_line(0)], widget.legend(7.25)

    seen = []
    for theme in ("textual-dark", "textual-light", "ansi-dark", "ansi-light", "textual-dark"):
        app.theme = theme
        await pilot.pause()
        seen.append(await styles())
    assert seen[0] != seen[1] and seen[0] == seen[-1]
    text = seen[0][1]
    assert text.plain == "0 " + "█" * STEPS + " 7.2" and len({str(span.style) for span in text.spans}) == STEPS


@on_screen()
async def test_marks_can_be_told_apart(app, widget, pilot):
    widget.show([Passage(("a", "b", "c", "d"), (STEPS, MASKED, DIFFERS, STEPS))])
    widget.move_to(0, 3)
    await pilot.pause()
    top, masked, differs, cursor = (segment.style for segment in list(widget._paint(0))[:4])
    assert masked.dim and differs.bold and differs.underline and top.bgcolor != masked.bgcolor
    assert cursor.reverse and cursor.bold and not top.reverse
    app.set_focus(None)
    await pilot.pause()
    cursor = list(widget._paint(0))[3].style
    assert cursor.underline and not cursor.reverse and cursor.bgcolor == top.bgcolor


@on_screen(size=(6, 4))
async def test_the_cursor_is_seen_on_what_has_no_width(app, widget, pilot):
    widget.show(plain(["abcde", "\n", "f"]))
    widget.move_to(0, 1)
    await pilot.pause()
    assert [segment.text for segment in widget._paint(0) if segment.style.reverse] == ["abcde"]


@on_screen(size=(60, 4))
async def test_neighbours_of_one_colour_share_a_segment(app, widget, pilot):
    widget.show([Passage((" a",) * 20, (0,) * 10 + (5,) * 10)])
    app.set_focus(None)
    await pilot.pause()
    assert len(list(widget._paint(0))) == 4  # the cursor, plain, coloured, the rest of the line


@on_screen(size=(40, 20))
async def test_only_dirty_lines_are_painted(app, widget, pilot):
    widget.show(plain([" word"] * 100))
    await pilot.pause()
    painted, paint = [], widget._paint
    widget._paint = lambda row: painted.append(row) or paint(row)
    await pilot.press("down")
    await pilot.pause()
    assert sorted(painted) == [0, 1]
    painted.clear()
    widget.append([" x"], [0])
    await pilot.pause()
    assert painted == [len(widget._placed.lines) - 1]
