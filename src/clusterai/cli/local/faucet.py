"""The local network's money for the asking."""

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local import bootstrap
from clusterai.cli.local.folder import DataFolder
from clusterai.cli.local.people import make_people
from clusterai.cli.local.wallet import send
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown
from clusterai.ledger.adapters.network import Network, load_network
from clusterai.ledger.core import calls
from clusterai.protocol.ids import Address, Digest, hex0x


async def deposit(folder: DataFolder, account: Digest, amount_wei: int) -> str:
    """Fund `account` at this machine's gateway on chain; returns the transaction."""
    people = make_people(folder, 0)
    network = load_network(folder.manifest)
    owner = people.gateway.owner.address
    return await _sent(network, bootstrap.fund(network, people.treasury, owner, account, amount_wei))


async def give(folder: DataFolder, receiver: Address, amount_wei: int) -> str:
    """Tokens for an address on chain; returns the transaction."""
    people = make_people(folder, 0)
    return await _sent(
        load_network(folder.manifest), [(people.treasury, calls.Transfer(receiver, amount_wei))]
    )


async def _sent(network: Network, steps: list[bootstrap.Step]) -> str:
    try:
        async with ChainClient(network) as client:
            await client.check()
            return hex0x((await send(client, steps))[-1])
    except (ChainDown, OtherChain) as error:
        raise Failure(
            "the chain can't be reached", str(error), "clusterai status", Exit.NOT_RUNNING
        ) from None
