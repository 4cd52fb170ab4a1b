"""The lease as the initiator sees it: granted from receipt, waited out in full, adopted where work went on."""

from __future__ import annotations

from meshagent.core.acts import Adopt, Commit, PassPointOfNoReturn, PointOfNoReturnRecorded, Renew, Renewed
from meshagent.core.contract_net.ending import Ending
from meshagent.core.contract_net.interface import Evidence, TaskChanged
from meshagent.core.contract_net.records import Phase
from meshagent.core.contract_net.undertaking import Renewals, Undertaking
from meshagent.types import Epoch, NodeId


class Holding(Ending):
    """COMMITTED: who holds it, and what evidence about peers changes (rules 3 to 5)."""

    # ---- the lease

    def _hear_renew(self, u: Undertaking, peer: NodeId, act: Renew, evidence: Evidence) -> None:
        if u.phase is Phase.COMMITTED and peer == u.holder:
            if act.epoch == u.epoch:
                self._grant(u, peer, act)
                return
            if act.epoch == u.former:
                self._send((peer,), Adopt(task=u.task, epoch=u.epoch, former=act.epoch))
                return
        if u.repeatable and peer in u.owing:
            # Healthy after all: its work goes on under a new epoch, unless somebody else is awarded already (rule 3).
            before_award = u.phase in (Phase.CALLING, Phase.BACKOFF) and act.epoch == u.awards[peer]
            if before_award or (u.phase is Phase.AWARDING and u.holder == peer and act.epoch < u.epoch):
                self._adopt(u, peer, act.epoch)
                return
            if u.phase is Phase.AWARDING:
                return  # that award may yet fail; this one renews again
        if u.phase is Phase.IN_DOUBT and peer == u.holder:
            return  # no grant can be true any more; the query is on its way
        self._fence(u, peer, act.epoch)

    def _grant(self, u: Undertaking, peer: NodeId, act: Renew) -> None:
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.renewals.heard(self._now_s)
        first = not u.heard
        u.heard = True
        self._negotiated.discard(u.task)
        u.former = None
        self._send((peer,), Renewed(task=u.task, epoch=u.epoch, boot=act.boot, sequence=act.sequence))
        if first or act.progress_permille or act.note:
            self._out.append(
                TaskChanged(
                    task=u.task,
                    state=u.state,
                    epoch=u.epoch,
                    holder=peer,
                    progress_permille=act.progress_permille,
                    note=act.note,
                )
            )

    def _adopt(self, u: Undertaking, peer: NodeId, former: Epoch) -> None:
        self._reject_losers(u, peer)
        self._drop_call(u)
        u.epoch = self._award_epoch(u)
        u.epoch_used = True
        u.holder = peer
        u.former = former
        u.awards[peer] = u.epoch
        u.owing[peer] = None
        u.heard = False
        u.renewals = Renewals(last_s=self._now_s)
        u.lease_until_s = self._now_s + self._config.lease_wait_s()
        u.resend_delay_s = 0.0
        self._again_at(u)
        self._note(u, "adopted", peer, (("former", former.counter),))
        self._enter(u, Phase.COMMITTED)
        self._send((peer,), Adopt(task=u.task, epoch=u.epoch, former=former))

    def _lease_over(self, u: Undertaking) -> None:
        self._note(u, "lease_ended", u.holder, u.renewals.facts())
        self._lose_holder(u)

    def _lose_holder(self, u: Undertaking) -> None:
        """Nobody is believed to hold it any more: in doubt after the point of no return, else called again."""
        if u.pnr:
            self._doubt(u, "the holder is silent past the point of no return")
            return
        self._call(u)

    def _remind(self, u: Undertaking) -> None:
        """The commit, the adoption or (after our restart) the question again."""
        assert u.holder is not None
        if u.former is not None:
            self._again_at(u)
            self._send((u.holder,), Adopt(task=u.task, epoch=u.epoch, former=u.former))
        elif not u.restored_unheard:
            self._again_at(u)
            self._send((u.holder,), Commit(task=u.task, epoch=u.epoch))
        else:
            self._query(u)

    def _hear_point_of_no_return(
        self, u: Undertaking, peer: NodeId, act: PassPointOfNoReturn, evidence: Evidence
    ) -> None:
        if u.phase is Phase.COMMITTED and peer == u.holder and act.epoch == u.epoch:
            if not u.pnr:
                u.pnr = True
                self._dirty[u.task] = u
                self._note(u, "pass_point_of_no_return", peer)
            if not u.heard:
                u.heard = True
                self._enter(u, Phase.COMMITTED, persist=False)
            self._send((peer,), PointOfNoReturnRecorded(task=u.task, epoch=u.epoch))
        elif not (u.phase is Phase.IN_DOUBT and peer == u.holder):
            self._fence(u, peer, act.epoch)

    # ---- evidence about peers

    def _peer_lost(self, peer: NodeId) -> None:
        for u in list(self._open.values()):
            if u.phase is Phase.CALLING and (peer in u.waiting or peer in u.bids):
                u.waiting.discard(peer)
                u.bids.pop(peer, None)
                self._note(u, "lost", peer)
                if not u.waiting:
                    self._close(u)
            elif u.phase is Phase.AWARDING:
                if peer in u.ranking:
                    u.ranking.remove(peer)
                if u.holder == peer:
                    self._award_unanswered(u, "the link was lost before it reserved")
            elif u.holder == peer and u.phase is Phase.COMMITTED:
                self._holder_lost(u, peer)
            else:
                continue
            self._arm(u)

    def _holder_lost(self, u: Undertaking, peer: NodeId) -> None:
        # Lost never means stopped: only what may be done twice is called again before the lease is over.
        self._note(u, "lost", peer, (("recalled", u.repeatable), *u.renewals.facts()))
        if u.repeatable:
            self._lose_holder(u)

    def _peer_found(self, peer: NodeId) -> None:
        offers: dict[str, bool] = {}

        def offered(kind: str) -> bool:
            if kind not in offers:
                offers[kind] = peer in self._directory.candidates(kind)
            return offers[kind]

        for u in list(self._open.values()):
            if u.phase is Phase.BACKOFF and offered(u.record.kind):
                # At once, yet not more often than a resend: a peer whose offer flickers makes nobody call all day.
                u.call_at_s = min(u.call_at_s, max(self._now_s, u.called_s + self._config.resend_s))
                if self._now_s >= u.call_at_s:
                    self._call(u)
            elif u.phase is Phase.CALLING and peer not in u.waiting and peer not in u.bids and offered(u.record.kind):
                u.asked[peer] = None
                u.refusals.pop(peer, None)
                u.waiting.add(peer)
                self._ask(u, (peer,))
            elif peer in u.owing and u.phase not in (Phase.CALLING, Phase.BACKOFF):
                self._speak_again(u, peer)
            else:
                continue
            self._arm(u)
        for u in self._ended.values():
            if peer in u.owing:
                self._speak_again(u, peer)
                self._arm(u)

    def _speak_again(self, u: Undertaking, peer: NodeId) -> None:
        """A peer that may wait for a word of ours is back: say it now instead of at the next resend."""
        u.resend_delay_s = 0.0
        if u.phase is Phase.AWARDING and u.holder == peer:
            self._send_award(u)
        elif u.phase is Phase.COMMITTED and u.holder == peer and not u.heard:
            self._remind(u)
        elif u.phase is Phase.IN_DOUBT:
            self._query(u)
        elif u.terminal or u.phase is Phase.CANCELLING:
            self._send_cancels(u)
