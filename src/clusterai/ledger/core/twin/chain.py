"""All twins behind one door: a call, a sender and a block go in; events or the name of a revert come out."""

from typing import assert_never

from clusterai.ledger.core import calls
from clusterai.ledger.core.deploy import Addresses
from clusterai.ledger.core.events import Event
from clusterai.ledger.core.rules import LOCAL, DrandRules, Rules
from clusterai.ledger.core.twin.audits import Audits
from clusterai.ledger.core.twin.beacon import ChainBeacon, DrandBeacon
from clusterai.ledger.core.twin.channels import Channels
from clusterai.ledger.core.twin.court import Court
from clusterai.ledger.core.twin.credit import Credit
from clusterai.ledger.core.twin.delegations import Delegations
from clusterai.ledger.core.twin.deliveries import Deliveries
from clusterai.ledger.core.twin.disputes import Disputes
from clusterai.ledger.core.twin.leases import Leases
from clusterai.ledger.core.twin.panel import Panel
from clusterai.ledger.core.twin.registry import Registry
from clusterai.ledger.core.twin.rewards import Rewards
from clusterai.ledger.core.twin.state import (
    UINT256_MAX,
    BlockContext,
    Recover,
    Refused,
    Revert,
    Store,
    Transaction,
    Verify,
    World,
)
from clusterai.ledger.core.twin.token import TRANSFER_WITH_AUTHORIZATION, Token
from clusterai.ledger.core.twin.vaults import Vaults
from clusterai.protocol.ids import Address
from clusterai.protocol.signing import recover as recover_signature


def _unknown(_rules: DrandRules, number: int, _point: bytes) -> bool | None:
    raise AssertionError(f"nobody here can verify round {number}: hand in `verify`")


class TwinChain:
    """The contracts' state, and one method that changes it.

    Args:
        deployer: holds the whole supply at first, and governs.
        recover: who signed a digest; `protocol.signing.recover` unless a simulation has a cheaper one.
        verify: whether a point is what a drand network signed; only where the rules name one.
    """

    def __init__(
        self,
        chain_id: int,
        addresses: Addresses,
        deployer: Address,
        rules: Rules = LOCAL,
        recover: Recover = recover_signature,
        verify: Verify | None = None,
    ) -> None:
        self._wire(chain_id, addresses, deployer, rules, recover, Store(), verify or _unknown)
        genesis = Transaction(deployer, BlockContext(0, 0, bytes(32)))
        self.token.mint(genesis, deployer, rules.supply_wei)
        for payer in (addresses.registry, addresses.leases):
            self.token.approve(Transaction(payer, genesis.block), addresses.delegations, UINT256_MAX)
        self._store.forget()

    def _wire(
        self,
        chain_id: int,
        addresses: Addresses,
        deployer: Address,
        rules: Rules,
        recover: Recover,
        store: Store,
        verify: Verify,
    ) -> None:
        self.chain_id = chain_id
        self.world = World(chain_id, addresses, rules, deployer, recover, store, verify)
        self._store = store
        self.token = Token(self.world, chain_id)
        self.registry = Registry(self.world, self.token)
        self.channels = Channels(self.world, self.token, self.registry)
        drand = rules.beacon
        self.beacon = ChainBeacon(self.world) if drand is None else DrandBeacon(self.world, drand)
        self.court = Court(self.world, self.token, self.registry, self.channels, self.beacon)
        self.credit = Credit(self.world, self.token, self.registry)
        self.panel = Panel(self.world, self.registry)
        self.registry.panel = self.panel
        self.delegations = Delegations(self.world, self.token, self.registry)
        self.registry.delegations = self.delegations
        self.leases = Leases(self.world, chain_id, self.token, self.registry, self.court)
        self.audits = Audits(self.world, self.token, self.registry, self.beacon, self.panel, self.leases)
        self.leases.audits = self.audits
        self.court.rates = self.audits
        self.deliveries = Deliveries(self.world, self.token, self.registry, self.panel, self.leases)
        self.leases.deliveries = self.deliveries
        self.disputes = Disputes(self.world, self.token, self.registry, self.panel, self.leases, self.audits)
        self.vaults = Vaults(self.world, self.token, self.registry, self.court)
        self.rewards = Rewards(self.world, self.token, self.registry, self.panel, self.beacon)

    def execute(self, call: calls.Call, sender: Address, block: BlockContext) -> tuple[Event, ...] | Refused:
        """Run one call as one transaction; a refused one changes nothing."""
        mark = self._store.mark()
        transaction = Transaction(sender, block)
        try:
            self._dispatch(transaction, call)
        except Revert as revert:
            self._store.rollback(mark)
            return Refused(revert.reason)
        return tuple(transaction.events)

    def mark(self) -> int:
        """Name the present state; see `rollback`."""
        return self._store.mark()

    def rollback(self, mark: int) -> None:
        """Go back to a mark: blocks undone by a reorganisation."""
        self._store.rollback(mark)

    def finalize(self) -> None:
        """Forget how to go back; all marks become invalid. Keeps long simulations small."""
        self._store.forget()

    def copy(self) -> "TwinChain":
        """An independent chain in the same state."""
        other = object.__new__(TwinChain)
        world = self.world
        other._wire(
            self.chain_id,
            world.addresses,
            world.governor,
            world.rules,
            world.recover,
            self._store.copy(),
            world.verify,
        )
        other.world.ids = world.ids
        return other

    def state(self) -> list[tuple[object, object]]:
        """Every stored value by its key, sorted: equal states give equal lists."""
        return sorted(((key, value) for key, value in self._store.items()), key=repr)

    def _dispatch(self, tx: Transaction, call: calls.Call) -> None:
        match call:
            case calls.Approve(spender, value):
                self.token.approve(tx, spender, value)
            case calls.Transfer(to, value):
                self.token.transfer(tx, to, value)
            case calls.TransferWithAuthorization(source, to, value, after_s, before_s, nonce, signature):
                kind = TRANSFER_WITH_AUTHORIZATION
                self.token.authorized(tx, kind, source, to, value, after_s, before_s, nonce, signature)
            case calls.Burn(value):
                self.token.burn(tx, value)
            case calls.Register(roles, card):
                self.registry.register(tx, roles, card)
            case calls.UpdateCard(card):
                self.registry.update_card(tx, card)
            case calls.Delegate(hot, consent):
                self.registry.delegate(tx, hot, consent)
            case calls.Revoke(hot):
                self.registry.revoke(tx, hot)
            case calls.Bond(amount):
                self.registry.bond(tx, amount)
            case calls.Unbond(amount):
                self.registry.unbond(tx, amount)
            case calls.Withdraw():
                self.registry.withdraw(tx)
            case calls.Tick() | calls.RecordPulse() | calls.RecordLapsed():
                self._dispatch_beacon(tx, call)
            case calls.Fund(gateway, account, amount):
                self.credit.fund(tx, gateway, account, amount)
            case (
                calls.Deposit()
                | calls.Claim()
                | calls.Settle()
                | calls.Reclaim()
                | calls.InitiateWithdraw()
                | calls.FinalizeWithdraw()
                | calls.Refund()
            ):
                self._dispatch_channels(tx, call)
            case (
                calls.DelegateStake()
                | calls.UndelegateStake()
                | calls.WithdrawStake()
                | calls.ClaimReward()
                | calls.AnnounceCommission()
                | calls.PayReward()
            ):
                self._dispatch_delegations(tx, call)
            case (
                calls.OpenLease()
                | calls.AcceptLease()
                | calls.CommitLease()
                | calls.CancelLease()
                | calls.GiveUpLease()
                | calls.CloseLease()
                | calls.ReleaseVested()
            ):
                self._dispatch_leases(tx, call)
            case (
                calls.Enlist()
                | calls.Weigh()
                | calls.DrawLease()
                | calls.CommitAudit()
                | calls.OpenSegment()
                | calls.RevealAudit()
                | calls.ReportWithheld()
                | calls.ExpireAudit()
                | calls.SpringTrap()
            ):
                self._dispatch_audits(tx, call)
            case calls.DemandDelivery() | calls.ReportUndelivered() | calls.ExpireDemand():
                self._dispatch_deliveries(tx, call)
            case (
                calls.StartDispute()
                | calls.AssertTrace()
                | calls.SelectRange()
                | calls.CommitReferee()
                | calls.RevealReferee()
                | calls.ExpireDispute()
            ):
                self._dispatch_disputes(tx, call)
            case (
                calls.ListDataset()
                | calls.GrantAccess()
                | calls.EndGrant()
                | calls.AnchorLog()
                | calls.BuyCopy()
                | calls.DeliverCopy()
                | calls.CloseSale()
            ):
                self._dispatch_vaults(tx, call)
            case (
                calls.ProveSpending()
                | calls.ProveSums()
                | calls.ProveEquivocation()
                | calls.ProveOmission()
                | calls.ProveRewriting()
            ):
                self._dispatch_breaches(tx, call)
            case (
                calls.OpenPot()
                | calls.JoinPot()
                | calls.ScorePot()
                | calls.ContestPot()
                | calls.VotePot()
                | calls.ClosePot()
                | calls.TakeOwed()
            ):
                self._dispatch_rewards(tx, call)
            case _:
                self._dispatch_court(tx, call)

    def _dispatch_beacon(self, tx: Transaction, call: calls.BeaconCall) -> None:
        match self.beacon, call:
            case ChainBeacon(), calls.Tick():
                self.beacon.tick(tx)
            case DrandBeacon(), calls.RecordPulse(number, signature):
                self.beacon.record_pulse(tx, number, signature)
            case DrandBeacon(), calls.RecordLapsed(number):
                self.beacon.record_lapsed(tx, number)
            case _:
                raise Revert("")  # the other beacon has no such function

    def _dispatch_channels(self, tx: Transaction, call: calls.ChannelsCall) -> None:
        match call:
            case calls.Deposit(config, amount):
                self.channels.deposit(tx, config, amount)
            case calls.Claim(claims):
                self.channels.claim(tx, claims)
            case calls.Settle(receiver, token):
                self.channels.settle(tx, receiver, token)
            case calls.Reclaim(config):
                self.channels.reclaim(tx, config)
            case calls.InitiateWithdraw(config, amount):
                self.channels.initiate_withdraw(tx, config, amount)
            case calls.FinalizeWithdraw(config):
                self.channels.finalize_withdraw(tx, config)
            case calls.Refund(config, amount):
                self.channels.refund(tx, config, amount)
            case _:
                assert_never(call)

    def _dispatch_delegations(self, tx: Transaction, call: calls.DelegationsCall) -> None:
        match call:
            case calls.DelegateStake(validator, amount):
                self.delegations.delegate_stake(tx, validator, amount)
            case calls.UndelegateStake(validator, amount):
                self.delegations.undelegate_stake(tx, validator, amount)
            case calls.WithdrawStake(validator):
                self.delegations.withdraw_stake(tx, validator)
            case calls.ClaimReward(validator):
                self.delegations.claim_reward(tx, validator)
            case calls.AnnounceCommission(bps):
                self.delegations.announce_commission(tx, bps)
            case calls.PayReward(validator, amount):
                self.delegations.pay_reward(tx, tx.sender, validator, amount)
            case _:
                assert_never(call)

    def _dispatch_leases(self, tx: Transaction, call: calls.LeasesCall) -> None:
        match call:
            case calls.OpenLease(terms):
                self.leases.open_lease(tx, terms)
            case calls.AcceptLease(lease):
                self.leases.accept_lease(tx, lease)
            case calls.CommitLease(lease, root, segments, output, units, amount, last, proof):
                self.leases.commit_lease(tx, lease, root, segments, output, units, amount, last, proof)
            case calls.CancelLease(lease, even_accepted):
                self.leases.cancel_lease(tx, lease, even_accepted)
            case calls.GiveUpLease(lease):
                self.leases.give_up_lease(tx, lease)
            case calls.CloseLease(lease):
                self.leases.close_lease(tx, lease)
            case calls.ReleaseVested(provider):
                self.leases.release_vested(tx, provider)
            case _:
                assert_never(call)

    def _dispatch_audits(self, tx: Transaction, call: calls.PanelCall | calls.AuditsCall) -> None:
        match call:
            case calls.Enlist():
                self.panel.enlist(tx)
            case calls.Weigh(auditor):
                self.panel.weigh(tx, auditor)
            case calls.DrawLease(lease):
                self.audits.draw_lease(tx, lease)
            case calls.CommitAudit(lease, sealed):
                self.audits.commit_audit(tx, lease, sealed)
            case calls.OpenSegment(lease, shown, other):
                self.audits.open_segment(tx, lease, shown, other)
            case calls.RevealAudit(lease, result, salt):
                self.audits.reveal_audit(tx, lease, result, salt)
            case calls.ReportWithheld(lease):
                self.audits.report_withheld(tx, lease)
            case calls.ExpireAudit(lease):
                self.audits.expire_audit(tx, lease)
            case calls.SpringTrap(terms, secret):
                self.audits.spring_trap(tx, terms, secret)
            case _:
                assert_never(call)

    def _dispatch_deliveries(self, tx: Transaction, call: calls.DeliveriesCall) -> None:
        match call:
            case calls.DemandDelivery(lease):
                self.deliveries.demand_delivery(tx, lease)
            case calls.ReportUndelivered(lease):
                self.deliveries.report_undelivered(tx, lease)
            case calls.ExpireDemand(lease):
                self.deliveries.expire_demand(tx, lease)
            case _:
                assert_never(call)

    def _dispatch_disputes(self, tx: Transaction, call: calls.DisputesCall) -> None:
        match call:
            case calls.StartDispute(lease):
                self.disputes.start_dispute(tx, lease)
            case calls.AssertTrace(lease, inner):
                self.disputes.assert_trace(tx, lease, inner)
            case calls.SelectRange(lease, part, denied, inner):
                self.disputes.select_range(tx, lease, part, denied, inner)
            case calls.CommitReferee(lease, sealed):
                self.disputes.commit_referee(tx, lease, sealed)
            case calls.RevealReferee(lease, result, salt):
                self.disputes.reveal_referee(tx, lease, result, salt)
            case calls.ExpireDispute(lease):
                self.disputes.expire_dispute(tx, lease)
            case _:
                assert_never(call)

    def _dispatch_vaults(
        self,
        tx: Transaction,
        call: calls.ListDataset
        | calls.GrantAccess
        | calls.EndGrant
        | calls.AnchorLog
        | calls.BuyCopy
        | calls.DeliverCopy
        | calls.CloseSale,
    ) -> None:
        match call:
            case calls.ListDataset(name, terms):
                self.vaults.list_dataset(tx, name, terms)
            case calls.GrantAccess(grant, transferable):
                self.vaults.grant_access(tx, grant, transferable)
            case calls.EndGrant(grant, reason):
                self.vaults.end_grant(tx, grant, reason)
            case calls.AnchorLog(dataset, root, count, spent_micro, as_of_s):
                self.vaults.anchor_log(tx, dataset, root, count, spent_micro, as_of_s)
            case calls.BuyCopy(dataset, request, requester, most_wei, deliver_by_s):
                self.vaults.buy_copy(tx, dataset, request, requester, most_wei, deliver_by_s)
            case calls.DeliverCopy(payer, grant, transferable):
                self.vaults.deliver_copy(tx, payer, grant, transferable)
            case calls.CloseSale(sale):
                self.vaults.close_sale(tx, sale)
            case _:
                assert_never(call)

    def _dispatch_breaches(
        self,
        tx: Transaction,
        call: calls.ProveSpending
        | calls.ProveSums
        | calls.ProveEquivocation
        | calls.ProveOmission
        | calls.ProveRewriting,
    ) -> None:
        match call:
            case calls.ProveSpending(shown):
                self.vaults.prove_spending(tx, shown)
            case calls.ProveSums(first, second):
                self.vaults.prove_sums(tx, first, second)
            case calls.ProveEquivocation(first, first_signature, second, second_signature):
                self.vaults.prove_equivocation(tx, first, first_signature, second, second_signature)
            case calls.ProveOmission(use, signature, piece):
                self.vaults.prove_omission(tx, use, signature, piece)
            case calls.ProveRewriting(dataset, index, first, second):
                self.vaults.prove_rewriting(tx, dataset, index, first, second)
            case _:
                assert_never(call)

    def _dispatch_rewards(self, tx: Transaction, call: calls.RewardsCall) -> None:
        match call:
            case calls.OpenPot(pot):
                self.rewards.open_pot(tx, pot)
            case calls.JoinPot(pot, rows):
                self.rewards.join_pot(tx, pot, rows)
            case calls.ScorePot(pot, evidence, scores):
                self.rewards.score_pot(tx, pot, evidence, scores)
            case calls.ContestPot(pot):
                self.rewards.contest_pot(tx, pot)
            case calls.VotePot(pot, digest):
                self.rewards.vote_pot(tx, pot, digest)
            case calls.ClosePot(pot, evidence, scores):
                self.rewards.close_pot(tx, pot, evidence, scores)
            case calls.TakeOwed(who):
                self.rewards.take_owed(tx, who)
            case _:
                assert_never(call)

    def _dispatch_court(self, tx: Transaction, call: calls.CourtCall) -> None:
        match call:
            case calls.CommitEpoch(epoch, root, count, total):
                self.court.commit_epoch(tx, epoch, root, count, total)
            case calls.Vote(verdict, proof, signature):
                self.court.vote(tx, verdict, proof, signature)
            case calls.Clear(clearance, signature):
                self.court.clear(tx, clearance, signature)
            case calls.Challenge(provider, epoch, index):
                self.court.challenge(tx, provider, epoch, index)
            case calls.AnswerChallenge(provider, epoch, index, part, parts, sealed):
                self.court.answer_challenge(tx, provider, epoch, index, part, parts, sealed)
            case calls.RecoverBond(provider, epoch, index):
                self.court.recover_bond(tx, provider, epoch, index)
            case calls.Equivocation(first, first_signature, second, second_signature):
                self.court.equivocation(tx, first, first_signature, second, second_signature)
            case calls.SetParameters(parameters):
                self.court.set_parameters(tx, parameters)
            case _:
                assert_never(call)
