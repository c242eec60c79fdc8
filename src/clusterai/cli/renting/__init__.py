"""A renter's side of rented machines: what is told of them, waited for, and kept running here.

Commands are in `commands/rent.py`. Nothing here decides what is rented, or pays: that is the gateway's.
"""
