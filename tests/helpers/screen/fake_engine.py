"""An engine made of records: no model, deterministic answers, held back, broken or lost whenever a test wants it.

`opened` runs the app on it. A generation streams by itself unless `stepping` is set: then `step` gives one token.
"""

import asyncio
import re
import unicodedata
import zlib
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count
from math import comb
from pathlib import Path

import msgspec
import samples
from textual import events
from textual._compositor import Compositor
from textual._context import visible_screen_stack
from textual.css.stylesheet import Stylesheet
from textual.keys import _character_to_key
from textual.pilot import Pilot
from textual.widgets import Static
from textual.widgets._toast import Toast

from engine.files.autosave import AutosaveStore
from engine.records import (
    Answer,
    AnswerRow,
    AnswersScored,
    Arm,
    ArmReplay,
    Attribute,
    AttributedFeature,
    Attribution,
    Bin,
    Cancelled,
    Check,
    CoActive,
    Describe,
    Described,
    Diagnosis,
    Doctor,
    EditsFrom,
    Effect,
    FeatureAt,
    FeatureRow,
    FeaturesAt,
    FedPrompt,
    FindMinimalSet,
    Finished,
    Generate,
    Generated,
    Load,
    MemoryLeft,
    MinimalSet,
    Neighbour,
    OtherArm,
    Probe,
    ProbeMeasured,
    ProbeRow,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Replay,
    Replayed,
    RunProbes,
    ScoreAnswers,
    SetMember,
    Show,
    Shown,
    StrongToken,
    TokenFeatures,
    TokenLogit,
    TokenStep,
)
from engine.records import attribution as measures
from engine.records.errors import EngineFault
from engine.serving.client import LiveEngine
from tui.app import SaescopeApp
from tui.services.context import Opening
from tui.state.study import Study, start_workspace

replace = msgspec.structs.replace

FEATURES = tuple(range(100, 130))
"""What every ranking finds; `also` adds more."""

D_SAE = 5000

BASELINE = ("The", " nurse", " is", " most", " likely", " a", " woman", ",", " they", " say", ".")

EDITED = ("The", " nurse", " is", " most", " likely", " a", " person", ",", " they", " say", ".")

FIRST_EDITED = 6
"""The first token that edits change."""

KL = 0.5
"""Nats, at every token that edits change."""

QUESTION = Probe(
    "Who is a nurse?", "chat", "A nurse is a", (Answer("female", (" woman",)), Answer("male", (" man", " boy")))
)

SMALL = PromptSet(
    "small",
    (Prompt("Women care for the home."), Prompt("Girls are bad at maths.")),
    (Prompt("Cats sleep all day."), Prompt("Ferries leave at dawn.")),
    (QUESTION, Probe("Who is a pilot?", "raw")),
)

HEALTHY = Diagnosis(
    (
        Check("hook", None, "blocks.1.hook_resid_pre is the input of model.layers.1"),
        Check("SAE's hook", True, "trained at blocks.1.hook_resid_pre"),
        Check("variance explained", True, "0.813 on 3,878 tokens of neutral text (at least 0.5 is to be expected)"),
        Check("L0", True, "36.9 features fire per token (sparse is below d_in / 4 = 144)"),
    ),
    36.9,
    0.813,
    3878,
)

# ---- what it answers


def number_of(text):
    """Always the same for a text, be it UTF-8 or not."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def id_of(token):
    return number_of(token) % 50_000


def fed(prompt, prefill=""):
    """Words as tokens, behind a leading token that does not count; in a chat the template's do not count either."""
    words = re.findall(r"\s*\S+", prompt.text)
    before, after = (["<s>", "<|user|>\n"], ["<|assistant|>\n"]) if prompt.format == "chat" else (["<s>"], [])
    tokens = (*before, *words, *after)
    counts = tuple(word in words for word in tokens)
    ids = tuple(id_of(token) for token in tokens)
    editable = (False, *[True] * (len(tokens) - 1))
    return FedPrompt(prompt.text, prompt.format, ids, tokens, counts, editable, prefill)


def activation(feature, token):
    """Between 0 and 7; silent on about half of all tokens."""
    return max(0, number_of(f"{feature}{token}") % 15 - 7) * 1.0


def loaded_of(load):
    name, sae = load.model or "demo", load.sae or "demo-sae"
    return replace(
        samples.LOADED,
        model=name,
        model_fingerprint=f"model {name}",
        sae=sae,
        sae_fingerprint=f"sae {sae}",
        hook=load.hook or "blocks.1.hook_resid_pre",
        d_sae=D_SAE,
        l0=36.9,
        variance_explained=0.813,
    )


def row_of(feature, place, labelings=0):
    return FeatureRow(
        feature,
        (f" word{feature}",),
        score=3 - place / 10,
        diff=place / 20,
        auroc=0.5 + (place * 7 % 30) / 60,
        t=(place * 11 % 30) / 5,
        g=(place * 13 % 30) / 10,
        coverage_positive=1.0,
        coverage_negative=0.0,
        density=(place + 1) / 1000,
        seed=(place * 17 % 30) * 1.5,
        p=min(1.0, 0.0002 * (place + 1) ** 2) if labelings >= 1000 else None,
        loo=place * 2 + 1,
    )


def ranking_of(request):
    found = request.prompts
    m, n = len(found.positive), len(found.negative)
    labelings = comb(m + n, m)
    rows = [row_of(feature, place, labelings) for place, feature in enumerate(FEATURES)]
    rows.sort(key=lambda row: -getattr(row, request.by))
    extra = [row_of(f, 29, labelings) for f in request.also if f not in FEATURES]
    return Ranking(
        (*rows[: request.top], *extra),
        request.by,
        request.pool,
        request.include_masked,
        request.density_weight,
        m,
        n,
        1234,
        labelings,
        1 / labelings,
        (),
        tuple(fed(p) for p in (*found.positive, *found.negative)),
        permutations=2000 if labelings >= 1000 else 0,
    )


def shown_of(request):
    prompts = tuple(fed(p) for p in request.prompts)
    rows = tuple(tuple(activation(request.feature, token) for token in p.tokens) for p in prompts)
    return Shown(request.feature, prompts, rows, 7.0)


def described_of(request):
    measure = request.measure
    return Described(
        request.feature,
        0.00123,
        7.0,
        123,
        100_000,
        (StrongToken(6.5, " nurse", "she is a", " at the clinic", "positive"),),
        (TokenLogit(5, " her", 1.5),),
        (TokenLogit(6, " his", -2.0),),
        histogram=tuple(Bin(i * 0.5, i * 0.5 + 0.5, 3000 // (i + 1) ** 2, max(0, 12 - 2 * i)) for i in range(14)),
        prompt_count=91,
        neighbours=tuple(Neighbour(request.feature + i, 0.9 - i / 10, (f" near{i}",)) for i in (1, 2, 3)),
        antipodes=(Neighbour(request.feature + 9, -0.75, (" far",)),),
        co_active=(CoActive(request.feature + 5, 7, 0.5, (" both",)),),
        effect=None if measure is None else Effect(measure.toward, measure.against, 1, False, BASE, BASE * 0.9),
    )


BASE = 2.0
"""The measure, in nats."""

ATTRIBUTED = (101, 4321, 103, 104, 105)
"""What an attribution finds among all features, most first. 4321 is in no ranking. 104 works the other way."""

EXACT = 4
"""How many of them are ablated."""

CONTROLS = tuple(range(2000, 2024))


def attributed(feature, place):
    sign = 1 if feature == 104 else -1
    estimate = sign * BASE * 0.4 / (place + 1)
    exact = estimate * 0.9 if place < EXACT else None
    percentile = None if exact is None else 1.0 - place / 20
    return AttributedFeature(feature, (f" word{feature}",), estimate, exact, 12.5 / (place + 1), 0.004, percentile)


def control(feature, place):
    return AttributedFeature(feature, (f" other{feature}",), -0.001 * place, -0.002, 3.0, 0.01, None, True)


def attribution_of(request):
    """Raises what the engine would where nothing can be measured."""
    probes = measures.check_measure(request.measure)
    among = request.candidates or ATTRIBUTED
    rows = [attributed(f, place) for place, f in enumerate(f for f in ATTRIBUTED if f in among)]
    extra = [f for f in dict.fromkeys((*request.also, *request.candidates)) if f not in ATTRIBUTED]
    rows += [attributed(f, 20 + place) for place, f in enumerate(extra)]
    return Attribution(
        request,
        tuple(ProbeMeasured(fed(Prompt(p.text + p.prefill, p.format)), BASE, 0.75, p.covariate) for p in probes),
        measures.is_slope(probes),
        BASE,
        (*rows, *(control(f, place) for place, f in enumerate(CONTROLS))),
        1234,
        len(CONTROLS),
        0.93,
        0.12,
        "float32",
        (),
    )


def minimal_set_of(request):
    """The first two candidates carry it, 30 % each."""
    members = request.candidates[:2]
    share = 0.3 * len(members)
    return MinimalSet(
        request,
        False,
        BASE,
        BASE * (1 - share),
        share,
        share >= request.share,
        tuple(SetMember(f, (f" word{f}",), 0.3 * (i + 1), share - 0.3) for i, f in enumerate(members)),
        17,
        0.97 if request.facts else None,
        0.012 if request.neutral_tokens else None,
        (-0.02, 0.01, 0.08),
        "float32",
        (),
    )


def features_at(request):
    token = fed(request.prompt).tokens[request.token_index]
    found = [FeatureAt(f, activation(f, token), (f" word{f}",)) for f in FEATURES]
    found = sorted((f for f in found if f.activation), key=lambda f: (-f.activation, f.feature))
    return TokenFeatures(request.prompt, request.token_index, token, tuple(found[: request.top]), len(found))


def arm(tokens):
    return Arm(
        "".join(tokens),
        tuple(id_of(t) for t in tokens),
        tuple(tokens),
        (-0.5,) * len(tokens),
    )


def words_of(edits, sample, at):
    """The token of an arm: edits, but for a scale of 1, change the words from FIRST_EDITED on.

    Samples are told apart by their first token.
    """
    changed = any((e.kind, e.strength) != ("scale", 1.0) for e in edits)
    word = (EDITED if changed else BASELINE)[at]
    return f"Sample{sample + 1}" if sample and at == 0 else word


def rows_of(request):
    """(sample, edited, variant) of every row, as engine.generation.decoding orders them."""
    rows = []
    for sample in range(request.samples):
        rows += [(sample, False, None), (sample, True, None)]
        rows += [(sample, True, variant) for variant in range(len(request.variants))]
    return rows


def edits_of(request, row, now):
    """What a row is under while `now` is what may change."""
    _, edited, variant = row
    return () if not edited else now if variant is None else request.variants[variant]


def settled(edits):
    """As the engine records them."""
    return tuple(
        replace(e, absolute=e.strength * 10) if e.kind in ("set", "steer") and e.absolute is None else e for e in edits
    )


def generated_of(request, schedule=None, tokens=None, stopped=False):
    """`tokens`, by row, is what was streamed; else what the request alone comes to."""
    rows = rows_of(request)
    schedule = [EditsFrom(c.token_index, settled(c.edits)) for c in schedule or (EditsFrom(0, request.edits),)]
    if tokens is None:
        length = min(len(BASELINE), request.sampling.max_tokens)
        tokens = [[words_of(edits_of(request, row, request.edits), row[0], i) for i in range(length)] for row in rows]
    arms = [arm(words) for words in tokens]
    baseline, edited = tokens[:2]
    apart = next((i for i, (a, b) in enumerate(zip(baseline, edited, strict=True)) if a != b), None)
    more = [OtherArm(*row, found, 20, 5 + i) for i, (row, found) in enumerate(zip(rows[2:], arms[2:], strict=True), 1)]
    return Generated(
        fed(request.prompt, request.prefill),
        request.sampling,
        schedule[0].edits,
        tuple(schedule),
        len(rows),
        arms[0],
        arms[1],
        apart,
        tuple(KL if a != b else 0.0 for a, b in zip(baseline, edited, strict=True)),
        20,
        5,
        25.0,
        tuple(map(settled, request.variants)),
        tuple(more),
        request.branched_at,
        stopped,
    )


def answer_rows(probe, edits):
    names = [a.name for a in probe.answers]
    return tuple(AnswerRow(name, 0.75 / (i + 1), 0.25 if edits else 0.75 / (i + 1)) for i, name in enumerate(names))


def table_of(request):
    rows = []
    for probe in request.probes:
        asked = Generate(Prompt(probe.text, probe.format), request.edits, request.sampling)
        rows.append(ProbeRow(probe, generated_of(asked), answer_rows(probe, request.edits)))
    return ProbeTable(request.edits, tuple(rows))


ANSWERS = {
    Load: loaded_of,
    Rank: ranking_of,
    Show: shown_of,
    Describe: described_of,
    FeaturesAt: features_at,
    ScoreAnswers: lambda r: AnswersScored(r.probe, r.edits, answer_rows(r.probe, r.edits)),
    RunProbes: table_of,
    Doctor: lambda r: HEALTHY,
    Replay: lambda r: Replayed(True, arms=(ArmReplay("baseline", True), ArmReplay("edited", True))),
    Attribute: attribution_of,
    FindMinimalSet: minimal_set_of,
}

# ---- the engine


@dataclass
class Stream:
    """A generation that runs."""

    request: Generate
    schedule: list
    tokens: list
    """By row."""


class FakeEngine(LiveEngine):
    """Records what it is asked, answers in the next turn of the loop. A newer request of a kind ends the older."""

    def __init__(self, folder=Path("/nowhere")):
        self._log = Path(folder) / "engine.log"
        self.requests, self.edits_set, self.cancelled, self.stopped = [], [], [], []
        self.starts = self.closes = 0
        self.start_fails = None
        """What `start` raises."""
        self.start_waits = None
        """An event `start` waits for."""
        self.failures = {}
        """By kind of request: the Failed it ends with."""
        self.instead = {}
        """By kind of request: a function that makes the result."""
        self.held = set()
        """Kinds that are not answered until `release`."""
        self.stepping = False
        self._ids, self._open, self._streams, self._edits, self._listener = count(1), {}, {}, {}, None

    # ---- LiveEngine

    @property
    def log_path(self):
        return self._log

    async def start(self, listener):
        self.starts += 1
        if self.start_waits is not None:
            await self.start_waits.wait()
        if self.start_fails is not None:
            raise self.start_fails
        self._listener = listener

    def ask(self, request):
        self.requests.append(request)
        request_id = next(self._ids)
        if self._listener is None:
            return request_id
        for other, before in list(self._open.items()):
            if isinstance(request, Load) or (type(before) is type(request) and not isinstance(request, Replay)):
                self._end(other, Cancelled())
        self._open[request_id] = request
        asyncio.get_running_loop().call_soon(self._begin, request_id)
        return request_id

    def cancel(self, request_id):
        self.cancelled.append(request_id)
        if request_id in self._open:
            self._end(request_id, Cancelled())

    def set_edits(self, request_id, edits):
        self.edits_set.append((request_id, edits))
        if request_id in self._open:
            self._edits[request_id] = edits

    def stop(self, request_id):
        self.stopped.append(request_id)
        if not self.stepping and request_id in self._streams:
            self._ended(request_id, self._streams[request_id])

    async def close(self):
        self.closes += 1
        self._open, self._streams, self._listener = {}, {}, None

    # ---- for tests

    def of(self, kind):
        """The requests of a kind, oldest first."""
        return [r for r in self.requests if isinstance(r, kind)]

    def release(self, kind):
        """Answers what was held back, from now on too."""
        self.held.discard(kind)
        for request_id, request in list(self._open.items()):
            if isinstance(request, kind):
                self._begin(request_id)

    def progress(self, kind, *events):
        """Says how far the requests of a kind are."""
        for request_id, request in list(self._open.items()):
            if isinstance(request, kind):
                for event in events:
                    self._listener.on_event(request_id, event)

    def kill(self, message="The engine was killed (SIGKILL)."):
        """Gone, with all it was doing."""
        listener, self._listener = self._listener, None
        self._open, self._streams = {}, {}
        listener.on_lost(EngineFault(message, "Restart it."))

    @property
    def streaming(self):
        """Whether a generation waits for `step`."""
        return bool(self._streams)

    def step(self, steps=1):
        """Gives the running generation's next tokens, each under the edits in force; ends it behind the last."""
        for _ in range(steps):
            ((request_id, stream),) = self._streams.items()
            self._token(request_id, stream)

    def finish(self):
        """Gives all of its tokens."""
        while self._streams:
            self.step()

    # ---- how it works

    def _emit(self, request_id, event):
        self._listener.on_event(request_id, event)

    def _end(self, request_id, event):
        self._open.pop(request_id)
        self._streams.pop(request_id, None)
        self._emit(request_id, event)

    def _begin(self, request_id):
        request = self._open.get(request_id)
        if request is None or type(request) in self.held:
            return
        if type(request) in self.failures:
            self._end(request_id, self.failures[type(request)])
        elif isinstance(request, Generate):
            stream = Stream(request, [EditsFrom(0, request.edits)], [[] for _ in rows_of(request)])
            for _ in range(request.branched_at or 0):
                self._token(request_id, stream, told=False)
            self._streams[request_id] = stream
            while not self.stepping and request_id in self._streams:
                self._token(request_id, stream)
        else:
            if isinstance(request, Load):
                self._emit(0, MemoryLeft(3_200_000_000, 8_000_000_000))
            self._end(request_id, Finished(self.instead.get(type(request), ANSWERS[type(request)])(request)))

    def _token(self, request_id, stream, told=True):
        """One more, and the end behind the last or once it is stopped: that takes effect with the next token."""
        request, at = stream.request, len(stream.tokens[0])
        planned = {change.token_index: change.edits for change in request.schedule}
        edits = planned.get(at, stream.schedule[-1].edits)
        if at and told and request_id in self._edits:
            edits = self._edits.pop(request_id)
        if stream.schedule[-1].edits != edits:
            stream.schedule.append(EditsFrom(at, edits))
        for row, words in zip(rows_of(request), stream.tokens, strict=True):
            words.append(words_of(edits_of(request, row, edits), row[0], at))
        if not told:
            return
        baseline, edited, *more = (words[at] for words in stream.tokens)
        kl = KL if baseline != edited else 0.0
        self._emit(request_id, TokenStep(at, baseline, edited, more=tuple(more), kl=kl))
        if at + 1 == min(len(BASELINE), request.sampling.max_tokens) or request_id in self.stopped:
            self._ended(request_id, stream)

    def _ended(self, request_id, stream):
        stopped = request_id in self.stopped
        found = generated_of(stream.request, stream.schedule, stream.tokens, stopped)
        self._end(request_id, Finished(found))


# ---- the app on it

LONG = 60
"""Seconds in which whatever a test waits for has come, on a busy machine too; only a test that fails waits so long."""

PAINT, PARSE = Compositor.render_update, Stylesheet._parse_rules

PARSED = {}
"""Rules by style sheet and theme: each test opens an app of its own, whose style sheets are always the same."""


def parsed_once(self, css, read_from, is_default_rules=False, tie_breaker=0, scope=""):
    """The rules of a style sheet, which is parsed for the first app that has it."""
    key = css, read_from, is_default_rules, tie_breaker, scope, frozenset(self._variables.items())
    if key not in PARSED:
        PARSED[key] = PARSE(self, css, read_from, is_default_rules, tie_breaker, scope)
    return PARSED[key]


@contextmanager
def painted_when_looked_at():
    """What changes on the screen is painted where a Bench looks at it, where it settles, and at the end of its test.

    A headless app paints every frame, though nobody sees it: more than half of what a test of the app would cost. Nor
    are its style sheets parsed again.
    """

    def put_off(self, full=False, screen_stack=None, simplify=False):
        return PAINT(self, full, screen_stack, simplify) if full else None

    Compositor.render_update, Stylesheet._parse_rules = put_off, parsed_once
    try:
        yield
    finally:
        Compositor.render_update, Stylesheet._parse_rules = PAINT, PARSE


@dataclass
class Bench:
    """An app that runs, and what it runs on."""

    app: SaescopeApp
    pilot: Pilot
    engine: FakeEngine
    store: AutosaveStore

    @property
    def main(self):
        return self.app.main

    @property
    def study(self):
        return self.app.main.study

    @property
    def top(self):
        """The screen on top."""
        return self.app.screen

    async def press(self, *keys):
        """Presses keys; after each, everything it sets off has been handled. Faster than the pilot, which waits for
        the process to be idle."""
        for key in keys:
            try:
                letter = key if len(key) == 1 else unicodedata.lookup(key.replace("_", " "))
            except KeyError:
                letter = None
            self._send(_character_to_key(key) if len(key) == 1 else key, letter)
            await self.handled()

    async def type(self, text):
        """Types into whatever has the focus."""
        for letter in text:
            self._send(_character_to_key(letter), letter)
        await self.handled()

    def _send(self, key, letter):
        event = events.Key(key, letter)
        event.set_sender(self.app)
        self.app._driver.send_message(event)

    async def handled(self):
        """Waits until what is posted, and what that posts, has been handled."""
        for _ in range(3):
            await self.pilot.pause(0)
        if self.app._exception is not None:
            raise self.app._exception

    def paint(self):
        """Paints what has changed."""
        if self.app.is_running:
            with self.app._context():
                PAINT(self.top._compositor, screen_stack=self.app._background_screens)

    async def until(self, condition, seconds=LONG):
        """Waits for something to become true, and returns it."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := condition()):
                    if self.app._exception is not None:
                        raise self.app._exception
                    await self.pilot.pause(0.005)
        except TimeoutError:
            raise AssertionError(f"did not come true within {seconds} s; the screen:\n{self.screen_text()}") from None
        return found

    async def shows(self, words):
        """Waits until the screen shows them."""
        await self.until(lambda: words in self.screen_text())

    async def hears(self, words):
        """Waits for a toast that says them."""
        await self.until(lambda: any(words in told for told in self.told()))

    async def settle(self):
        """Waits for all that was set off: what the engine said has been handed out and handled too. Paints it."""
        await self.answered()
        self.paint()

    async def answered(self):
        """Waits for all that was set off, and does not paint it."""
        await self.handled()
        await self.until(lambda: self.main.bridge._flush_at is None)
        await self.handled()

    async def no_toasts(self):
        """Takes the toasts off every screen, and waits until they are gone."""
        screens = self.app.screen_stack
        self.app.clear_notifications()
        for toast in [toast for screen in screens for toast in screen.query(Toast)]:
            await toast.remove()
        await self.until(lambda: not any(screen.query(Toast) for screen in screens))

    def screen_text(self):
        """What the terminal shows, a line a line, as plain text."""
        with self.app._context():
            visible_screen_stack.set(self.app._background_screens)  # else those of whatever was painted last
            lines = self.top._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in lines)

    def words(self, selector):
        """A Static's text."""
        return str(self.top.query_one(selector, Static).render())

    def told(self):
        """The toasts on the screen."""
        return [str(n.title) + " " + str(n.message) for n in self.app._notifications]

    def errors(self):
        """The errors the messages page holds."""
        return [m for m in self.main.messages if "✗" in m]

    def header(self):
        """The first line."""
        return self.screen_text().splitlines()[0]

    def rows(self):
        """The leaderboard's features, top down; none while nothing is ranked."""
        if not self.main.features.table.display:
            return []
        return [int(row.key.value) for row in self.main.features.table.ordered_rows]

    async def ranked(self):
        """With a ranking, the leaderboard focused."""
        await self.press("r")
        await self.until(lambda: self.study.ranking() is not None and self.rows())
        await self.press("3")

    async def generated(self):
        """With a finished text."""
        before = len(self.study.results.of(Generated))
        await self.press("g")
        await self.until(lambda: len(self.study.results.of(Generated)) > before and not self.main.generation.running)


def small_study(prompts=SMALL, load=None):
    return Study(load or Load(), start_workspace(prompts))


@asynccontextmanager
async def opened(folder, study=None, *, size=(130, 40), engine=None, store=None, offer_last=False, ready=True):
    """The app on a fake engine; `ready` waits for the model."""
    engine = engine or FakeEngine(folder)
    store = store or AutosaveStore(Path(folder) / "sessions.sqlite3")
    app = SaescopeApp(Opening(study or small_study(), lambda: engine, lambda: store, offer_last))
    app.NOTIFICATION_TIMEOUT = 1000 * LONG  # toasts stay, however slow the machine
    with painted_when_looked_at():
        async with app.run_test(size=size, notifications=True) as pilot:
            bench = Bench(app, pilot, engine, store)
            if ready:
                await bench.until(lambda: app.main.context.tasks.ready)
                await bench.answered()
            yield bench
            if app.is_running and app._exception is None:
                await bench.until(app.main.furnished.is_set)
                await bench.handled()
                bench.paint()
                await bench.until(lambda: not app.main.context.autosave._keeping)
                await app.action_quit()


def on_app(**options):
    """Makes a test of an async function of a Bench. The user's folders are the test's own."""

    def decorate(test):
        @wraps(test)
        def run(tmp_path):
            async def main():
                async with opened(tmp_path, **options) as bench:
                    await test(bench)

            asyncio.run(main())

        del run.__wrapped__  # pytest would take its parameters for fixtures
        return run

    return decorate
