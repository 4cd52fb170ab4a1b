"""`meshagent submit`: ask for a task by name and fields, without having its class, and wait for the result.

What peers announce of a kind (`CheckContact(site: str, suspected: str) -> Finding [at_least_once]`) is enough to check
and encode what was typed. The performer validates it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from meshagent.operator.exits import CommandError, Exit
from meshagent.operator.render import clean, duration, literal
from meshagent.operator.session import Desk, Document, open_session
from meshagent.operator.story import Timeline, seconds
from meshagent.sdk.names import near
from meshagent.sdk.outline import Outline, OutlineError
from meshagent.types import Delivery, Durability, kind_stem, short
from meshagent.wire.v1 import operator_pb2 as pb

if TYPE_CHECKING:
    from meshagent.operator.grammar import Screen

LOOK_FOR_S: Final = 3.0
"""How long somebody who offers the kind is looked for: mDNS and one link take 0.3 s, a filtered network never ends."""
LOOK_AGAIN_S: Final = 0.05
PATIENCE_S: Final = 2.0
"""A task that takes longer is told live; a quicker one in one line at its end."""
WITHDRAW_S: Final = 2.0
"""How long a leaving visitor waits until the holder has heard that its task is withdrawn."""
MAX_STDIN_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was typed."""

    kind: str
    fields: tuple[str, ...] = ()
    spec: Mapping[str, object] | None = None
    """Given as JSON instead of fields."""
    within_s: float | None = None
    key: str = ""
    priority: int = 0
    durability: str = ""
    delivery: str = ""
    queue: bool = False
    wait: bool = True
    check: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """A kind that somebody in reach performs."""

    outline: Outline
    by: tuple[str, ...]


async def submit_task(screen: Screen, wish: Wish, flags: Mapping[str, tuple[str, object]]) -> Exit:
    """Submit and wait; the exit code says how it ended."""
    if wish.kind == "-":
        wish = _from_stdin(wish)
    _check_words(wish)
    async with open_session(screen, flags=flags, always_visit=screen.dev and wish.wait) as desk:
        if desk.visiting and not wish.wait:
            raise CommandError(
                "Nobody would keep the task: no node runs here, and this visitor leaves at once.",
                exit_code=Exit.USAGE,
                next_step="leave --no-wait out, or run a node first: meshagent run ROLE"
                + (" --dev" if screen.dev else ""),
            )
        offer = await _find(screen, desk, wish)
        request = _request(screen, wish, offer.outline)
        if wish.check:
            text = f"ok: {offer.outline.signature()}, performed by {', '.join(offer.by)}; nothing was sent"
            screen.answer({"schema": "meshagent.checked/1", "kind": offer.outline.kind, "by": list(offer.by)}, text)
            return Exit.DONE
        return await _Following(screen, desk, wish, offer).follow(request)


def _check_words(wish: Wish) -> None:
    for option, given, words in (
        ("--delivery", wish.delivery, Delivery),
        ("--durability", wish.durability, Durability),
    ):
        if given and given not in [str(word) for word in words]:
            raise CommandError(f"{option} {given}? It is one of {', '.join(words)}.", exit_code=Exit.USAGE)
    if not -(1 << 31) <= wish.priority < 1 << 31:
        raise CommandError(f"--priority {wish.priority} is out of range.", exit_code=Exit.USAGE)


def _from_stdin(wish: Wish) -> Wish:
    text = sys.stdin.read(MAX_STDIN_BYTES + 1)
    expected = 'such as {"kind": "Greet", "spec": {"name": "world"}, "within_s": 60}'
    try:
        if len(text) > MAX_STDIN_BYTES:
            raise ValueError("it is longer than 1 MiB")
        given = json.loads(text)
        if not isinstance(given, dict):
            raise ValueError("it is no object")
        unknown = given.keys() - {"kind", "spec", "within_s", "key", "priority", "delivery", "durability"}
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]} is unknown")
        typed: dict[str, Any] = {"kind": (str, None), "spec": (dict, {}), "key": (str, ""), "priority": (int, 0)}
        typed |= {"delivery": (str, ""), "durability": (str, "")}
        for name, (kind, _) in typed.items():
            if name in given and (not isinstance(given[name], kind) or isinstance(given[name], bool)):
                raise ValueError(f"{name} is {json.dumps(given[name])}")
        within = given.get("within_s")
        if within is not None and (
            not isinstance(within, (int, float)) or isinstance(within, bool) or not 0 < within < 1e9
        ):
            raise ValueError(f"within_s is {json.dumps(within)}")
        if "kind" not in given:
            raise ValueError("kind misses")
    except (ValueError, RecursionError) as error:
        raise CommandError(f"stdin holds no task: {error}.", exit_code=Exit.USAGE, next_step=expected) from error
    return replace(
        wish,
        kind=given["kind"],
        spec=given.get("spec", {}),
        within_s=wish.within_s or within,
        key=wish.key or given.get("key", ""),
        priority=wish.priority or given.get("priority", 0),
        delivery=wish.delivery or given.get("delivery", ""),
        durability=wish.durability or given.get("durability", ""),
    )


# ---- who offers it


async def _find(screen: Screen, desk: Desk, wish: Wish) -> Offer:
    """The offer that the word means; waits a little for somebody who makes it, with --queue as long as it takes."""
    loop = asyncio.get_running_loop()
    limit_s = LOOK_FOR_S if screen.timeout_s is None else min(LOOK_FOR_S, screen.timeout_s)
    give_up_s = loop.time() + (limit_s if not wish.queue else screen.timeout_s or float("inf"))
    said = False
    while True:
        answer = await desk.ask(pb.CompleteRequest(what="kind"))
        offer = _meant(wish.kind, offers_in(answer))
        if offer is not None:
            return offer
        if loop.time() >= give_up_s:
            raise await _nobody(screen, desk, wish, offers_in(answer))
        if wish.queue and not said:
            screen.say(f"nobody offers {clean(wish.kind)} yet, waiting")
            said = True
        await asyncio.sleep(LOOK_AGAIN_S)


def offers_in(answer: Document) -> list[Offer]:
    """The offers of a `meshagent.complete/1` answer; descriptions that cannot be read are left out.

    Where peers describe one kind in different ways, the description of most of them counts.
    """
    found: list[Offer] = []
    for item in answer["candidates"]:
        votes = Counter({text: len(names) for text, names in item.get("descriptions", {}).items()})
        for text, _ in sorted(votes.items(), key=lambda vote: (-vote[1], vote[0])):
            with contextlib.suppress(OutlineError):
                outline = Outline.parse(item["value"], text)
                found.append(Offer(outline, tuple(clean(name) for name in item["descriptions"][text])))
                break
    return found


def _meant(word: str, offers: list[Offer]) -> Offer | None:
    """By the kind's name, the class's name, or any unique beginning of either.

    Raises:
        CommandError: several are meant.
    """
    for matches in (
        [o for o in offers if o.outline.kind == word],
        [o for o in offers if o.outline.name == word],
        [o for o in offers if o.outline.name.lower() == word.lower() or kind_stem(o.outline.kind) == word],
        [o for o in offers if o.outline.kind.startswith(word) or o.outline.name.startswith(word)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            kinds = ", ".join(clean(o.outline.kind) for o in matches)
            raise CommandError(
                f"{word} could be {kinds}.",
                exit_code=Exit.USAGE,
                next_step=f"meshagent submit {clean(matches[0].outline.kind)}",
            )
    return None


async def _nobody(screen: Screen, desk: Desk, wish: Wish, offers: list[Offer]) -> CommandError:
    peers = (await desk.ask(pb.PeersRequest()))["peers"]
    dev = " --dev" if screen.dev else ""
    alive = [p for p in peers if p.get("state") in (None, "alive")]
    if not alive and not offers:
        return CommandError(
            f"Nobody is in reach who could do {clean(wish.kind)}.",
            exit_code=Exit.UNREACHED,
            next_step=f"meshagent run ROLE{dev}" + ("" if screen.dev else "   or see why: meshagent doctor"),
        )
    names = sorted({clean(o.outline.name) for o in offers})
    meant = near(wish.kind, [*names, *(o.outline.kind for o in offers)])
    offered = f" with {', '.join(names)}" if names else ", who perform nothing"
    lost = [p for p in peers if p.get("state") not in (None, "alive") and wish.kind in str(p.get("kinds", ""))]
    gone = "".join(f" {clean(p['name'])} offered it (lost)." for p in lost[:1])
    return CommandError(
        f"Nobody offers {clean(wish.kind)}. Alive: {len(alive)} peer{'' if len(alive) == 1 else 's'}{offered}.{gone}",
        exit_code=Exit.UNREACHED,
        next_step=f"meshagent submit {clean(meant)}"
        if meant
        else f"run a role that performs it: meshagent run ROLE{dev}   or add --queue to wait for one",
    )


def _request(screen: Screen, wish: Wish, outline: Outline) -> pb.SubmitRequest:
    try:
        plain = outline.plain(wish.fields) if wish.spec is None else outline.check(wish.spec)
    except OutlineError as error:
        dev = " --dev" if screen.dev and (error.next_step or "").startswith("meshagent submit") else ""
        raise CommandError(str(error), exit_code=Exit.USAGE, next_step=f"{error.next_step}{dev}") from error
    return pb.SubmitRequest(
        kind=outline.kind,
        spec=outline.encode(plain),
        delivery=wish.delivery or str(outline.delivery),
        in_doubt=str(outline.in_doubt),
        approval=outline.approval,
        key=wish.key,
        within_s=wish.within_s or 0.0,
        priority=wish.priority,
        durability=wish.durability,
    )


# ---- following it


class _Following:
    """One submission on its way, told as it goes."""

    def __init__(self, screen: Screen, desk: Desk, wish: Wish, offer: Offer) -> None:
        self._screen = screen
        self._desk = desk
        self._wish = wish
        self._offer = offer
        self._told: list[Document] = []
        self._live = False
        self._timeline = Timeline()
        self._task = ""

    async def follow(self, request: pb.SubmitRequest) -> Exit:
        """To the end, or as long as was asked for."""
        answers = self._desk.stream(request)
        try:
            async with asyncio.timeout(self._screen.timeout_s):
                outcome = await self._end_of(answers)
        except TimeoutError:
            return await self._unfinished()
        except asyncio.CancelledError:
            await self._abandon("interrupted")
            raise
        except CommandError as error:
            if error.exit_code is not Exit.UNREACHED or not self._task:
                raise
            raise self._orphaned() from error  # its socket broke: killed, or stopped at once
        finally:
            await answers.aclose()
        return self._left(outcome) if outcome.get("event") == "submitted" else self._ended(outcome)

    async def _end_of(self, answers: Any) -> Document:
        impatient = asyncio.get_running_loop().call_later(PATIENCE_S, self._grow_impatient)
        try:
            async for document in answers:
                event = document["event"]
                if event == "submitted":
                    self._task = document["task"]
                    self._screen.say(f"{short(self._task)} submitted", level=1)
                    if not self._wish.wait:
                        return dict(document)
                elif event == "outcome":
                    return dict(document)
                else:
                    if self._live:
                        self._say(document)
                    else:
                        self._told.append(document)
        finally:
            impatient.cancel()
        raise self._orphaned()

    def _orphaned(self) -> CommandError:
        return CommandError(
            f"The node left before {short(self._task) or 'the task'} ended. "
            "Its journal has it: it goes on when the node is back.",
            exit_code=Exit.UNREACHED,
            next_step=f"start the node again, then: meshagent why {short(self._task)}"
            + (" --dev" if self._screen.dev else ""),
        )

    def _grow_impatient(self) -> None:
        self._live = True
        for document in self._told:
            self._say(document)

    def _say(self, document: Document) -> None:
        line = self._timeline.line(document)
        if line:
            self._screen.say(line)

    def _left(self, document: Document) -> Exit:
        self._screen.answer(document, document["task"])
        self._screen.say(f"  next: meshagent watch {short(self._task)}")
        return Exit.DONE

    def _ended(self, outcome: Document) -> Exit:
        dev = " --dev" if self._screen.dev else ""
        if not self._live:
            self._screen.say(summary(self._told, outcome))
        done = outcome["state"] == "done"
        result = outcome.get("result")
        text = (result if isinstance(result, str) else literal(result)) if done else ""
        self._screen.answer(outcome, clean(text) if done and result is not None else "")
        if not done:
            reason = clean(outcome.get("reason") or "")
            detail = f", {clean(outcome['detail'])}" if outcome.get("detail") else ""
            self._screen.say(f"{short(self._task)} {outcome['state'].upper()}: {reason}{detail}")
        self._screen.say(f"ask why:  meshagent why {short(self._task)}{dev}")
        if done:
            return Exit.DONE
        return Exit.PERMISSION if outcome.get("reason") == "PERMISSION" else Exit.FAILED

    async def _unfinished(self) -> Exit:
        after = duration(self._screen.timeout_s or 0.0)
        if self._desk.visiting:
            await self._abandon("the asker waited no longer")
            fate = "it was withdrawn, because no node stays here to keep it"
        else:
            fate = "it lives on"
        dev = " --dev" if self._screen.dev else ""
        if self._screen.json:
            self._screen.answer(
                {
                    "schema": "meshagent.submit/1",
                    "event": "unfinished",
                    "task": self._task,
                    "withdrawn": self._desk.visiting,
                },
                "",
            )
        else:
            self._screen.answer({}, self._task)
        self._screen.say(
            f"{short(self._task)} is not finished after {after}; {fate}.\n"
            f"  next: meshagent why {short(self._task)}{dev}"
        )
        return Exit.UNFINISHED

    async def _abandon(self, why: str) -> None:
        """A visitor takes its task along: without it nobody would fetch the result or call again."""
        if not self._task:
            return
        label = short(self._task)
        if not self._desk.visiting:
            self._screen.say(f"{label} lives on.\n  next: meshagent watch {label}   or: meshagent cancel {label}")
            return
        with contextlib.suppress(CommandError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_S):
                await self._desk.ask(pb.CancelRequest(task=self._task, detail=why, wait=True))
                self._screen.say(f"{label} withdrawn")


def summary(told: list[Document], outcome: Document) -> str:
    """`called 2 peers · 2 bids: ann, adds 0.0 s; bob, adds 1.0 s · awarded to ann · done in 0.02 s`."""
    parts = []
    called = [d for d in told if d["event"] == "called"]
    if called:
        peers = int(called[-1].get("peers") or 0)
        again = f" {len(called)} times" if len(called) > 1 else ""
        parts.append(f"called {peers} peer{'' if peers == 1 else 's'}{again}")
    bids = [d for d in told if d["event"] == "propose"]
    if bids:
        shown = "; ".join(
            f"{clean(d.get('peer_name') or d.get('peer'))}, adds {seconds(d.get('added_ms'))}" for d in bids[-3:]
        )
        parts.append(f"{len(bids)} bid{'' if len(bids) == 1 else 's'}: {shown}")
    refusals = Counter(clean(d.get("reason")) for d in told if d["event"] == "refuse")
    if refusals:
        parts.append("refused: " + ", ".join(f"{reason} {count}" for reason, count in sorted(refusals.items())))
    if outcome.get("holder_name"):
        parts.append(f"awarded to {clean(outcome['holder_name'])}")
    parts.append(f"{outcome['state']} in {duration(float(outcome.get('after_s') or 0.0))}")
    return " · ".join(parts)
