"""The initiator's call: ask, collect, rank, award one after the other, commit.

A call ends early when everyone has answered. Losing bids are never verified; the winner is, before its award.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from meshagent.core.acts import AcceptProposal, Cfp, Commit, Propose, Refuse, RejectProposal, Reserve
from meshagent.core.contract_net.clearing import Bid, plausible, rank, score
from meshagent.core.contract_net.initiator_base import Fact, InitiatorBase
from meshagent.core.contract_net.interface import Evidence
from meshagent.core.contract_net.records import Phase
from meshagent.core.contract_net.undertaking import Renewals, Tender, Undertaking
from meshagent.types import Epoch, NodeId, Reason, TaskId

MAX_EPOCH_JUMP: Final = 1 << 20
"""A peer that has seen a higher epoch of ours (our journal is older than its) moves our counter up by at most this:
a liar can waste counters but not exhaust them."""


class Calling(InitiatorBase):
    """CALLING, BACKOFF and AWARDING (DESIGN 6, rules 1, 2, 9, 10)."""

    # ---- asking

    def _next_epoch(self, u: Undertaking) -> Epoch:
        """Unique: the counter never falls, and the boot tells two lives of this node apart (rule 1)."""
        return Epoch(u.epoch.counter + 1, self._me, self._boot)

    def _call(self, u: Undertaking) -> None:
        """Ask every candidate, under a new epoch that the first award of this call will use."""
        u.epoch = self._next_epoch(u)
        u.epoch_used = False
        u.call_epoch = u.epoch
        u.holder = None
        u.former = None
        u.heard = False
        u.restored_unheard = False
        if u.ending is None:
            u.reason, u.detail = None, ""
        u.called_s = self._now_s
        u.reply_by_s = self._now_s + self._config.reply_within_s
        candidates = tuple(self._directory.candidates(u.record.kind))
        u.asked = dict.fromkeys(candidates)
        u.waiting = set(candidates)
        u.bids = {}
        u.refusals = {}
        u.ranking = []
        u.repriced = set()
        self._note(
            u,
            "called",
            facts=(
                ("peers", len(candidates)),
                ("kind", u.record.kind),
                ("reply_by_s", self._config.reply_within_s),
                ("resumes", u.checkpoint is not None),
            ),
        )
        self._enter(u, Phase.CALLING, persist=False)
        if candidates:
            self._ask(u, candidates)
        else:
            self._close(u)

    def _ask(self, u: Undertaking, peers: tuple[NodeId, ...]) -> None:
        self._send(
            peers,
            Cfp(
                task=u.task,
                epoch=u.call_epoch,
                record=u.record,
                reply_within_ms=max(0, int((u.reply_by_s - self._now_s) * 1000)),
                within_ms=self._within_ms(u),
                resumes=u.checkpoint is not None,
            ),
        )

    def _hear_propose(self, u: Undertaking, peer: NodeId, act: Propose, evidence: Evidence) -> None:
        if act.epoch != u.call_epoch or peer not in u.waiting:
            return  # of an earlier call, or said twice
        if not plausible(act.added_ms, act.load_ms):
            self._illegal(u, peer, act, "a price that no plan can have")
            return
        u.waiting.discard(peer)
        u.bids[peer] = Tender(act.added_ms, act.load_ms, act.plan_version, act.holds_result, evidence)
        power = self._config.potential_p
        facts: tuple[Fact, ...] = (
            ("added_ms", act.added_ms),
            ("load_ms", act.load_ms),
            # for people, in seconds: the integer that decides has no bound (a bid of 56 s already leaves 64 bits)
            ("score", score(act.added_ms, act.load_ms, power) / 1000**power),
        )
        if act.because:
            facts += (("because", act.because),)
        if act.holds_result:
            facts += (("holds_result", True),)
        self._note(u, "propose", peer, facts, verified=False)
        if not u.waiting:
            self._close(u)

    def _hear_refuse(self, u: Undertaking, peer: NodeId, act: Refuse, evidence: Evidence) -> None:
        if u.phase is Phase.AWARDING:
            if act.epoch == u.epoch:
                self._award_refused(u, peer, act, evidence)
            return
        if act.epoch != u.call_epoch or peer not in u.waiting:
            return
        u.waiting.discard(peer)
        u.refusals[peer] = (act, evidence)
        facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail))
        if act.duplicate_of is not None:
            facts += (("duplicate_of", act.duplicate_of),)
        self._note(u, "refuse", peer, facts, verified=False)
        if act.reason is Reason.STALE_EPOCH and evidence.verify():
            self._go_above(u, act)
        if not u.waiting:
            self._close(u)

    def _go_above(self, u: Undertaking, act: Refuse) -> None:
        """A peer has seen a later epoch of ours: our journal is the older one. What comes next is above it."""
        seen = act.seen
        if seen is not None and seen.owner == self._me and 0 <= seen.counter - u.epoch.counter <= MAX_EPOCH_JUMP:
            u.epoch = Epoch(seen.counter, self._me, self._boot)
            u.epoch_used = True  # the award needs a new one: the call's own is below what was seen

    # ---- clearing

    def _close(self, u: Undertaking) -> None:
        """The call is over: rank the bids and award the best, or find out why there is none."""
        silent = sorted(u.waiting)
        if u.asked:
            facts: tuple[Fact, ...] = (
                ("bids", len(u.bids)),
                ("refusals", len(u.refusals)),
                ("asked", len(u.asked)),
                ("early_s", round(max(0.0, u.reply_by_s - self._now_s), 3)),
                ("potential_p", self._config.potential_p),
            )
            if silent:
                facts += (("silent", " ".join(silent)),)
            self._note(u, "closed", facts=facts)
        duplicate = self._believed_duplicate(u)
        if duplicate is not None:
            # Somebody works on the same thing already: nobody is awarded, and later the result is there to fetch.
            self._back_off(u, Reason.DUPLICATE, f"the same work is under way as {duplicate}")
            return
        bids = [Bid(peer, t.added_ms, t.load_ms, t.holds_result) for peer, t in u.bids.items()]
        ranked = rank(u.task, bids, self._config.potential_p, u.gave_back)
        u.ranking = [bid.peer for bid in reversed(ranked)]
        self._award_next(u)

    def _believed_duplicate(self, u: Undertaking) -> TaskId | None:
        for peer in sorted(u.refusals):
            act, evidence = u.refusals[peer]
            if act.reason is Reason.DUPLICATE and act.duplicate_of is not None and act.duplicate_of != u.task:
                if evidence.verify():
                    return act.duplicate_of
                self._note(u, "forged", peer, (("act", "refuse"),), verified=False)
        return None

    def _back_off(self, u: Undertaking, reason: Reason, detail: str) -> None:
        u.backoffs += 1
        longest_s = min(self._config.backoff_max_s, self._config.backoff_s * 2.0 ** min(u.backoffs - 1, 30))
        delay_s = longest_s * self._rng.uniform(0.5, 1.0)
        u.call_at_s = self._now_s + delay_s
        u.holder = None
        self._drop_call(u)
        u.reason, u.detail = reason, detail
        self._note(u, "backoff", facts=(("reason", reason.value), ("detail", detail), ("again_s", round(delay_s, 3))))
        self._enter(u, Phase.BACKOFF, persist=False)

    def _why_nobody(self, u: Undertaking) -> str:
        parts = [f"{len(u.bids)} bids, {len(u.refusals)} refusals"]
        counts = Counter(act.reason.value for act, _ in u.refusals.values())
        if counts:
            parts.append(", ".join(f"{word} {n}" for word, n in sorted(counts.items(), key=lambda i: (-i[1], i[0]))))
        if u.waiting:
            parts.append(f"{len(u.waiting)} did not answer")
        return ": ".join(parts[:2]) + ("; " + parts[2] if len(parts) > 2 else "") if u.asked else "nobody offers it"

    # ---- awarding

    def _award_next(self, u: Undertaking) -> None:
        while u.ranking:
            peer = u.ranking.pop()
            tender = u.bids[peer]
            if tender.evidence.verify():
                break
            self._note(u, "forged", peer, (("act", "propose"),), verified=False)
            del u.bids[peer]
        else:
            self._back_off(u, Reason.NO_BIDS, self._why_nobody(u))
            return
        # A new epoch for every award, runner-ups too: one epoch never has two holders (rule 1).
        u.epoch = self._award_epoch(u)
        u.epoch_used = True
        u.holder = peer
        u.awards[peer] = u.epoch
        u.owing[peer] = None
        u.award_until_s = self._now_s + self._config.award_timeout_s
        u.resend_delay_s = 0.0
        runner_up = u.ranking[-1] if u.ranking else None
        self._note(
            u,
            "accept_proposal",
            peer,
            (
                ("runner_up", runner_up),
                ("added_ms", tender.added_ms),
                ("load_ms", tender.load_ms),
                ("plan_version", tender.plan_version),
            ),
        )
        self._enter(u, Phase.AWARDING)
        self._send_award(u)

    def _award_epoch(self, u: Undertaking) -> Epoch:
        return self._next_epoch(u) if u.epoch_used else u.epoch

    def _send_award(self, u: Undertaking) -> None:
        assert u.holder is not None
        tender = u.bids[u.holder]
        self._again_at(u)
        self._send(
            (u.holder,),
            AcceptProposal(
                task=u.task,
                epoch=u.epoch,
                record=u.record,
                call_epoch=u.call_epoch,
                added_ms=tender.added_ms,
                load_ms=tender.load_ms,
                plan_version=tender.plan_version,
                lease_ms=int(self._config.lease_s * 1000),
                within_ms=self._within_ms(u),
                checkpoint=u.checkpoint,
                checkpoint_version=u.checkpoint_version,
            ),
        )

    def _award_refused(self, u: Undertaking, peer: NodeId, act: Refuse, evidence: Evidence) -> None:
        if not evidence.verify():
            self._note(u, "forged", peer, (("act", "refuse"),), verified=False)
            return
        facts: tuple[Fact, ...] = (("reason", act.reason.value), ("detail", act.detail), ("to", "award"))
        priced = act.added_ms is not None and act.load_ms is not None and plausible(act.added_ms, act.load_ms)
        if priced:
            facts += (("added_ms", act.added_ms), ("load_ms", act.load_ms))
        self._note(u, "refuse", peer, facts)
        u.refusals[peer] = (act, evidence)
        u.owing.pop(peer, None)
        if act.reason is Reason.STALE_EPOCH:
            self._go_above(u, act)
        elif act.reason is Reason.STALE_BID and priced and peer not in u.repriced:
            # Its plan has changed since the bid. At the new price it stands in line with the others, once a call.
            assert act.added_ms is not None
            assert act.load_ms is not None
            u.repriced.add(peer)
            tender = u.bids[peer]
            u.bids[peer] = Tender(act.added_ms, act.load_ms, tender.plan_version, tender.holds_result, evidence)
            standing = [*u.ranking, peer]
            bids = [Bid(p, u.bids[p].added_ms, u.bids[p].load_ms, u.bids[p].holds_result) for p in standing]
            ranked = rank(u.task, bids, self._config.potential_p, u.gave_back)
            u.ranking = [bid.peer for bid in reversed(ranked)]
        elif act.reason is Reason.DUPLICATE and act.duplicate_of is not None and act.duplicate_of != u.task:
            self._back_off(u, Reason.DUPLICATE, f"the same work is under way as {act.duplicate_of}")
            return
        self._award_next(u)

    def _award_unanswered(self, u: Undertaking, why: str) -> None:
        """Silence: it never gets a commit of that epoch, so the runner-up is safe to ask at once."""
        peer = u.holder
        assert peer is not None
        self._note(u, "lost", peer, (("why", why),))
        self._fence(u, peer, u.epoch)
        self._award_next(u)

    def _hear_reserve(self, u: Undertaking, peer: NodeId, act: Reserve, evidence: Evidence) -> None:
        if peer == u.holder and act.epoch == u.epoch:
            if u.phase is Phase.AWARDING:
                self._commit(u, peer)
                return
            if u.phase is Phase.COMMITTED:
                if u.restored_unheard:
                    # Our restart lost count of its lease, and it may have reserved long after we awarded: start anew.
                    u.restored_unheard = False
                    u.lease_until_s = self._now_s + self._config.lease_wait_s()
                if not u.heard:
                    self._send((peer,), Commit(task=u.task, epoch=u.epoch))
                return
        self._fence(u, peer, act.epoch)

    def _commit(self, u: Undertaking, peer: NodeId) -> None:
        # Counted from receipt here, from the first sending there: the participant always gives up first (rule 5).
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.heard = False
        u.renewals = Renewals(last_s=self._now_s)
        u.backoffs = 0
        u.resend_delay_s = 0.0
        self._again_at(u)
        self._note(u, "reserve", peer)
        self._note(u, "commit", peer, (("lease_s", self._config.lease_s),))
        # Not persisted: after a crash the award alone already counts as possibly committed.
        self._enter(u, Phase.COMMITTED, persist=False)
        self._send((peer,), Commit(task=u.task, epoch=u.epoch))
        self._reject_losers(u, peer)
        self._drop_call(u)

    def _reject_losers(self, u: Undertaking, winner: NodeId | None) -> None:
        losers = tuple([peer for peer in u.bids if peer != winner and peer not in u.owing])
        if losers:
            self._send(losers, RejectProposal(task=u.task, epoch=u.call_epoch), urgent=False)

    def _drop_call(self, u: Undertaking) -> None:
        u.bids = {}
        u.refusals = {}
        u.ranking = []
        u.repriced = set()
