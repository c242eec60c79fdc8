"""The money seen from Python: the chain's calls and events as data, the embedded chain, the chain client, the twins.

The room exists so that the rest of the house can be paid without knowing an ABI. It refuses to decide who is paid.
"""
