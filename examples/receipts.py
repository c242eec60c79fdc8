"""What a program can read besides answers: its account, its receipts and how far each is verified, the nodes.

python examples/receipts.py
"""

from clusterai.protocol.money import show
from clusterai.sdk import Client


def main() -> None:
    with Client() as client:
        account = client.account()
        print(f"credit {show(account.credit_wei)}, charged {show(account.charged_wei)}")
        for receipt in client.receipts(limit=5):
            print(f"{receipt.id}  {receipt.state:<9} {show(receipt.price_wei)}")
        for node in client.nodes():
            print(
                f"{node.provider}  {node.state}, stake {show(node.stake_wei)} ({node.numbers['stake_wei']})"
            )


if __name__ == "__main__":
    main()
