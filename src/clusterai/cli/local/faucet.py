"""The local network's money for the asking."""

from clusterai.cli.failure import Exit, Failure
from clusterai.cli.local import bootstrap
from clusterai.cli.local.folder import DataFolder, LocalAccount
from clusterai.cli.local.people import make_people
from clusterai.cli.local.wallet import send
from clusterai.ledger.adapters.client import ChainClient, OtherChain
from clusterai.ledger.adapters.jsonrpc import ChainDown
from clusterai.ledger.adapters.network import load_network
from clusterai.protocol.ids import digest, hex0x


async def deposit(folder: DataFolder, account: LocalAccount, amount_wei: int) -> str:
    """Fund `account` on chain; returns the transaction."""
    people = make_people(folder, 0)
    network = load_network(folder.manifest)
    owner = people.gateway.owner.address
    steps = bootstrap.fund(network, people.treasury, owner, digest(account.account), amount_wei)
    try:
        async with ChainClient(network) as client:
            await client.check()
            return hex0x((await send(client, steps))[-1])
    except (ChainDown, OtherChain) as error:
        raise Failure(
            "the chain can't be reached", str(error), "clusterai status", Exit.NOT_RUNNING
        ) from None
