"""`why` as text: a `meshagent.why/1` document told in order, in the words that people use.

The document speaks FIPA (`cfp, propose, refuse, accept_proposal`); here each word is mapped once to the one that people
say (call, bid, refused, award). Nothing is left out and nothing is concluded that the records do not say; names and
sentences come from other devices and are cleaned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from meshagent.operator.render import Paint, clean, duration, literal, named, padded
from meshagent.types import short

Act = Mapping[str, Any]

_OBJECTIVE: Final = {1: "energy", 4: "balanced", 8: "makespan"}
_WORDS: Final[Mapping[str, str]] = {
    "called": "call",
    "cfp": "call",
    "propose": "bid",
    "refuse": "refused",
    "closed": "closed",
    "accept_proposal": "award",
    "reject_proposal": "not you",
    "reserve": "reserved",
    "commit": "committed",
    "renew": "renewed",
    "renewed": "renewed",
    "checkpoint": "checkpoint",
    "inform": "result",
    "failure": "failed",
    "forfeit": "gave back",
    "cancel": "cancel",
    "cancelled": "cancelled",
    "lost": "lost",
    "started": "started",
    "ended": "ended",
    "lease_ended": "lease",
    "fenced": "fenced",
    "adopted": "adopted",
    "kept": "kept",
    "taken_over": "taken over",
    "owned": "goes on",
    "resigned": "handed on",
    "outcome": "told",
    "closed_by": "kept end",
    "old_journal": "old disk",
    "restarted": "restarted",
    "backoff": "backoff",
    "late": "late",
    "forged": "forged",
    "expired": "expired",
    "in_doubt": "in doubt",
    "resolved": "resolved",
    "not_understood": "not under.",
    "pass_point_of_no_return": "no return",
    "point_of_no_return_recorded": "no return",
}
"""Word of the record -> word for people; one mapping, used by `why`, `watch` and the log of `run`."""
_COLOURS: Final[Mapping[str, str]] = {
    "accept_proposal": "bold",
    "commit": "good",
    "inform": "good",
    "refuse": "dim",
    "lost": "bad",
    "failure": "bad",
    "forged": "bad",
    "lease_ended": "warn",
    "fenced": "warn",
    "backoff": "warn",
    "in_doubt": "bad",
    "taken_over": "warn",
    "old_journal": "bad",
}
_OUTSIDE: Final = frozenset(
    {"act", "t_s", "from", "to", "verified", "told_by", "name"}
    | {"schema", "at", "event", "task", "kind", "peer", "peer_name", "holder", "holder_name", "epoch", "missed"}
)
"""Keys of an act or event that are placed by themselves and not listed as facts."""


SAME_S: Final = 0.1
"""Two notes of one device about one act are this close; two renewals or two awards of one epoch are not."""
_BOTH_NOTE: Final = frozenset({"reserve", "commit", "inform", "failure", "forfeit", "cancelled", "refuse", "adopted"})


def word_of(event: str) -> str:
    """What people say for an event of the story."""
    return _WORDS.get(event, event.replace("_", " "))


class Names:
    """Ids to names, for one document: `dog-2`, or the id's first letters where nobody said a name."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Collect every pair of id and name that the document has."""
        self._names: dict[str, str] = {}
        self._put(document.get("asked_by"), document.get("asked_by_name"))
        self._put(document.get("holder"), document.get("holder_name"))
        for one in (
            *document.get("told_by", ()),
            *document.get("not_asked", ()),
            *document.get("custodians", ()),
        ):
            self._put(one.get("id"), one.get("name"))
        for epoch in document.get("epochs", ()):
            self._put(epoch.get("initiator"), epoch.get("initiator_name"))
            for act in epoch.get("acts", ()):
                self._put(act.get("from"), act.get("name"))
                self._put(act.get("runner_up"), act.get("runner_up_name"))

    def _put(self, node: object, name: object) -> None:
        if node and name:
            self._names[str(node)] = clean(name)

    def __call__(self, node: object) -> str:
        """How people call the node."""
        return self._names.get(str(node), clean(str(node)[:8])) if node else "-"

    def both(self, node: object) -> str:
        """`dog-2 (m7pz4c1k)`."""
        called, start = self(node), clean(str(node)[:8])
        return called if called == start else f"{called} ({start})"


def seconds(value: object) -> str:
    """`38.2 s` from milliseconds."""
    return f"{float(value) / 1000:.1f} s" if isinstance(value, (int, float)) else "?"


def scored(value: object) -> str:
    """`5.39 M`: scores are compared, not read."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return clean(value)
    for unit in ("", " k", " M", " G", " T", " P", " E"):
        if abs(number) < 1000:
            return f"{number:.2f}{unit}" if unit else f"{number:.0f}"
        number /= 1000
    return f"{number * 1000:.1e}"


def tell(document: Mapping[str, Any], paint: Paint) -> str:
    """The whole story."""
    names = Names(document)
    lines = [*_head(document, names, paint), ""]
    for epoch in document.get("epochs", ()):
        lines.append(_epoch_line(epoch, names, paint))
        lines += [_act_line(act, names, paint) for act in told_once(epoch.get("acts", ()))]
    lines.append(_foot(document, names))
    return "\n".join(lines)


def told_once(acts: Sequence[Act]) -> list[Act]:
    """Where asker and holder are one device, it notes a fact twice: as the one and as the other. Told once."""
    once: list[Act] = []
    for act in acts:
        for number, earlier in enumerate(once):
            same = all(act.get(key) == earlier.get(key) for key in ("act", "from", "peer", "told_by"))
            near = abs(float(act.get("t_s", 0.0)) - float(earlier.get("t_s", 0.0))) <= SAME_S
            if same and near and act.get("act") in _BOTH_NOTE:
                once[number] = {**act, **earlier}
                break
        else:
            once.append(act)
    return once


def _head(document: Mapping[str, Any], names: Names, paint: Paint) -> list[str]:
    label = short(clean(document.get("task", "?")))
    kind = document.get("kind") or "?"
    spec = document.get("spec")
    lines = [f"{paint(label, 'bold')}  {named(str(kind), spec) if spec is not None else clean(kind)}"]
    outcome = str(document.get("outcome") or "")
    good = outcome == "done"
    if outcome:
        colour = "good" if good else "bad" if document.get("ended") else "warn"
        sentence = paint(clean(outcome).upper().replace("_", " "), colour)
    else:
        sentence = paint("OUTCOME UNKNOWN", "warn") + ": whoever asked for it could not be asked"
    if document.get("holder") and good:
        sentence += f" by {names(document['holder'])}"
    if document.get("after_s") is not None and document.get("ended"):
        sentence += f" after {duration(float(document['after_s']))}"
    reason = document.get("reason")
    if reason and not good:
        sentence += f": {clean(reason)}"
    detail = document.get("detail")
    if detail and not good:
        sentence += f", {clean(detail)}"
    lines.append(sentence + "." + _takeovers(document, names))
    if good and document.get("result") is not None:
        lines.append(f"result {literal(document['result'])}")
    terms = [f"asked by {names.both(document['asked_by'])}"] if document.get("asked_by") else []
    if document.get("delivery"):
        terms.append(clean(document["delivery"]))
    if document.get("priority"):
        terms.append(f"priority {clean(document['priority'])}")
    if document.get("custodians"):
        terms.append("custodians " + ", ".join(names.both(one["id"]) for one in document["custodians"]))
    if document.get("key"):
        terms.append(f"key {clean(document['key'])}")
    if document.get("parent"):
        terms.append(f"for {short(clean(document['parent']))}")
    if terms:
        lines.append(" · ".join(terms))
    return lines


def _takeovers(document: Mapping[str, Any], names: Names) -> str:
    """`dog-1 was lost, dog-2 took over 0.31 s later.`: each loss of a committed holder and the commit after it."""
    acts = [act for epoch in document.get("epochs", ()) for act in epoch.get("acts", ())]
    told = ""
    holder: object = None
    lost_at: float | None = None
    loser: object = None
    how = "was lost"
    for act in acts:
        event = act.get("act")
        who = act.get("from") or act.get("peer")
        if event == "commit":
            if lost_at is not None and who != loser:
                after = float(act.get("t_s", 0.0)) - lost_at
                told += f" {names(loser)} {how}, {names(who)} took over {after:.2f} s later."
            holder, lost_at = who, None
        elif event in ("lost", "lease_ended", "forfeit") and holder is not None and who == holder and lost_at is None:
            lost_at, loser = float(act.get("t_s", 0.0)), who
            how = {"lost": "was lost", "lease_ended": "fell silent", "forfeit": "gave it back"}[str(event)]
    return told


def _epoch_line(epoch: Mapping[str, Any], names: Names, paint: Paint) -> str:
    title = paint(f"EPOCH {clean(epoch.get('epoch', '?'))}", "bold")
    return f"{title}   initiator {names(epoch.get('initiator'))}"


def _act_line(act: Act, names: Names, paint: Paint) -> str:
    event = str(act.get("act", "?"))
    word = padded(clean(word_of(event)), 10)
    colour = _COLOURS.get(event)
    at = f"{float(act.get('t_s', 0.0)):+.3f}".rjust(9)
    text = describe(act, names)
    unproven = "" if act.get("verified", True) else paint("  (not verified)", "warn") if event == "forged" else ""
    return f"{at}  {paint(word, colour) if colour else word} {text}{unproven}".rstrip()


def describe(act: Act, names: Names) -> str:
    """What happened, without time and word: `dog-1   adds 38.2 s to a plan of 10.0 s   score 5.39 M`."""
    event = str(act.get("act", "?"))
    teller: Callable[[Act, Names], str] | None = _TELLERS.get(event)
    return teller(act, names) if teller else _plain(act, names)


def _who(act: Act, names: Names) -> str:
    return padded(names(act.get("from") or act.get("peer")), 8)


def _facts(act: Act, skip: Sequence[str] = ()) -> str:
    rest = [
        f"{clean(key).replace('_', ' ')} {literal(value) if not isinstance(value, str) else clean(value)}"
        for key, value in act.items()
        if key not in _OUTSIDE and key not in skip and value not in (None, "", False)
    ]
    return ", ".join(rest)


def _plain(act: Act, names: Names) -> str:
    who = act.get("from") or act.get("peer")
    return "   ".join(part for part in (names(who) if who else "", _facts(act)) if part)


def _called(act: Act, names: Names) -> str:
    peers = act.get("peers")
    count = peers if isinstance(peers, int) else 0
    reply = act.get("reply_by_s")
    by = f", reply by {float(act.get('t_s', 0.0)) + float(reply):+.3f}" if isinstance(reply, (int, float)) else ""
    resumes = "; a checkpoint goes with the award" if act.get("resumes") else ""
    if not count:
        return f"nobody in reach offers {clean(act.get('kind', 'it'))}"
    return f"{count} peer{' offers' if count == 1 else 's offer'} {clean(act.get('kind', 'it'))}{by}{resumes}"


def _bid(act: Act, names: Names) -> str:
    parts = [_who(act, names)]
    if act.get("holds_result"):
        parts.append("has done it already")
    else:
        parts.append(f"adds {seconds(act.get('added_ms'))} to a plan of {seconds(act.get('load_ms'))}")
    if act.get("score") is not None:
        parts.append(f"score {scored(act['score'])}")
    if act.get("because"):
        parts.append(clean(act["because"]))
    return "   ".join(parts)


def _refused(act: Act, names: Names) -> str:
    award = "the award   " if act.get("to") == "award" or act.get("of") == "award" else ""
    price = f"   now adds {seconds(act['added_ms'])}" if act.get("added_ms") is not None else ""
    detail = clean(act.get("detail") or "")
    return f"{_who(act, names)}   {award}{padded(clean(act.get('reason', '?')), 12)} {detail}{price}".rstrip()


def _closed(act: Act, names: Names) -> str:
    asked, bids, refusals = (int(act.get(k) or 0) for k in ("asked", "bids", "refusals"))
    answered = bids + refusals
    early = float(act.get("early_s") or 0.0)
    p = act.get("potential_p")
    if asked and answered >= asked:
        text = (
            ("the only one" if asked == 1 else f"all {asked}")
            + " answered"
            + (f", {early:.3f} s early" if early > 0 else "")
        )
    else:
        text = f"{answered} of {asked} answered in time"
    if act.get("silent"):
        text += f"; silent: {', '.join(names(node) for node in str(act['silent']).split())}"
    if bids > 1 and p is not None:
        text += f"; lowest score wins ({_OBJECTIVE.get(p, 'custom')}, p = {clean(p)})"
    return text


def _award(act: Act, names: Names) -> str:
    runner_up = act.get("runner_up")
    return f"{_who(act, names)}   {f'runner-up {names(runner_up)}' if runner_up else 'no runner-up'}"


def _reserved(act: Act, names: Names) -> str:
    plan = f" (plan v{clean(act['plan_version'])})" if act.get("plan_version") is not None else ""
    price = f"adds {seconds(act.get('added_ms'))} now" if act.get("changed") else "unchanged"
    return f"{_who(act, names)}   priced again: {price}{plan}"


def _committed(act: Act, names: Names) -> str:
    lease = act.get("lease_s")
    return f"{_who(act, names)}   lease {float(lease):.1f} s" if isinstance(lease, (int, float)) else _who(act, names)


def _renewals(act: Act) -> str:
    count = act.get("renewals")
    gap = act.get("longest_gap_s")
    if not isinstance(count, int) or not count:
        return ""
    longest = f", the longest gap {float(gap):.2f} s" if isinstance(gap, (int, float)) else ""
    return f"after {count} renewal{'' if count == 1 else 's'}{longest}"


def _ended(act: Act, names: Names) -> str:
    extra = _facts(act, ("renewals", "longest_gap_s", "recalled", "why", "detail", "reason", "bytes", "checkpoint"))
    parts = [_who(act, names)]
    if act.get("act") == "lease_ended":
        parts.append("ended")
    if act.get("reason"):
        parts.append(clean(act["reason"]))
    for key in ("detail", "why"):
        if act.get(key):
            parts.append(clean(act[key]))
    if act.get("recalled"):
        parts.append("at_least_once: called again at once")
    if _renewals(act):
        parts.append(_renewals(act))
    if act.get("checkpoint"):
        parts.append("its checkpoint goes on")
    if extra:
        parts.append(extra)
    return "   ".join(parts)


def _restarted(act: Act, names: Names) -> str:
    phase = f"   its journal says: {clean(act['phase'])}" if act.get("phase") else ""
    doubt = "   past its point of no return" if act.get("in_doubt") else ""
    return f"{_who(act, names)}{phase}{doubt}"


def _work_ended(act: Act, names: Names) -> str:
    if act.get("ok"):
        return "the handler returned"
    return "   ".join(clean(act[key]) for key in ("reason", "detail") if act.get(key))


def _backoff(act: Act, names: Names) -> str:
    again = act.get("again_s")
    later = f"; calls again in {float(again):.1f} s" if isinstance(again, (int, float)) else ""
    return f"{clean(act.get('detail') or act.get('reason') or '')}{later}"


def _checkpoint(act: Act, names: Names) -> str:
    return f"{_who(act, names)}   version {clean(act.get('version', '?'))}, {clean(act.get('bytes', '?'))} bytes"


_TELLERS: Final[Mapping[str, Callable[[Act, Names], str]]] = {
    "called": _called,
    "cfp": _called,
    "propose": _bid,
    "refuse": _refused,
    "closed": _closed,
    "accept_proposal": _award,
    "reserve": _reserved,
    "commit": _committed,
    "lost": _ended,
    "lease_ended": _ended,
    "inform": _ended,
    "failure": _ended,
    "forfeit": _ended,
    "cancelled": _ended,
    "cancel": _ended,
    "ended": _work_ended,
    "restarted": _restarted,
    "backoff": _backoff,
    "checkpoint": _checkpoint,
}


_SAID_BY_ACTS: Final = frozenset({"calling", "held", "executing", "backoff"})
"""States that follow from an act which has a line of its own."""


def event_line(document: Mapping[str, Any]) -> str:
    """One event of `watch` as a line: `+0.006 s  check-7k2f  bid  dog-1  adds 38.2 s to a plan of 10.0 s`."""
    event = str(document.get("event", "?"))
    at = f"{float(document.get('t_s', 0.0)):+.3f} s".rjust(11)
    who = clean(document.get("peer_name") or document.get("holder_name") or str(document.get("peer") or "")[:8])
    missed = f"   ({document['missed']} events missed)" if document.get("missed") else ""
    if not document.get("task"):
        aside = clean(document.get("address") or document.get("why") or "")
        extra = f"  ({aside})" if aside else f"  {_facts(document)}"
        return f"{at}  {clean(event.replace('_', ' '))}  {who}{extra}{missed}".rstrip()
    label = short(clean(document["task"]))
    if event == "state":
        told = _state(document, who)
        return f"{at}  {label}  {told}{missed}" if told else ""
    act = {**document, "act": event, "from": document.get("peer"), "name": document.get("peer_name")}
    text = describe(act, Names({"epochs": [{"acts": [act]}]}))
    return f"{at}  {label}  {padded(clean(word_of(event)), 10)} {text}{missed}".rstrip()


class Timeline:
    """Lines of events as they come; what was told by the last line is not told again.

    That is progress that did not move, and an act that a node notes twice because it awarded the task to itself.
    """

    def __init__(self) -> None:
        """Nothing told yet."""
        self._progress: dict[str, tuple[object, object]] = {}
        self._noted: tuple[object, ...] = ()
        self._noted_s = -math.inf

    def line(self, document: Mapping[str, Any]) -> str:
        """The line, or nothing."""
        if document.get("event") == "state":
            task = str(document.get("task"))
            seen = (document.get("progress"), document.get("note"))
            if document.get("progress") is None:
                self._progress.pop(task, None)
            elif self._progress.get(task) == seen:
                return ""
            else:
                self._progress[task] = seen
        elif document.get("event") in _BOTH_NOTE:
            noted = tuple(document.get(key) for key in ("event", "task", "peer", "epoch"))
            at_s = float(document.get("t_s", 0.0))
            if noted == self._noted and at_s - self._noted_s < SAME_S:
                return ""
            self._noted, self._noted_s = noted, at_s
        return event_line(document)


def _state(document: Mapping[str, Any], who: str) -> str:
    if document.get("progress") is not None:
        note = f"  {clean(document['note'])}" if document.get("note") else ""
        return f"{who}  progress {float(document['progress']):.0%}".replace("%", " %") + note
    state = clean(document.get("state", "?"))
    if state in _SAID_BY_ACTS:
        return ""
    parts = [state.upper(), who if document.get("holder") else ""]
    if document.get("result") is not None:
        parts.append(literal(document["result"]))
    parts += [clean(document[key]) for key in ("reason", "detail") if document.get(key)]
    return "  ".join(part for part in parts if part)


def _foot(document: Mapping[str, Any], names: Names) -> str:
    acts = [act for epoch in document.get("epochs", ()) for act in epoch.get("acts", ())]
    # a bid is noted before it is verified; that of whoever was then awarded was verified at clearing
    awarded = {
        (number, act.get("from") or act.get("peer"))
        for number, epoch in enumerate(document.get("epochs", ()))
        for act in epoch.get("acts", ())
        if act.get("act") == "accept_proposal"
    }
    unverified = sum(
        not act.get("verified", True) and (number, act.get("from") or act.get("peer")) not in awarded
        for number, epoch in enumerate(document.get("epochs", ()))
        for act in epoch.get("acts", ())
    )
    proof = "all verified" if not unverified else f"{unverified} of losing bidders known by their link alone"
    missing = [f"{names(one.get('id'))} ({clean(one.get('why', '?'))})" for one in document.get("not_asked", ())]
    cut = [names(one.get("id")) for one in document.get("told_by", ()) if one.get("truncated")]
    tellers = len(document.get("told_by", ()))
    told = f"{len(acts)} lines by {tellers} device{'' if tellers == 1 else 's'}, {proof}"
    text = f"{told} · not asked: {', '.join(missing) or 'none'}"
    return text + (f" · shortened by {', '.join(cut)}" if cut else "")
