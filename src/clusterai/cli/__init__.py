"""The command line: reads arguments, calls a main or the SDK, prints.

The room exists so that a person can start a network, watch it, and check what it claims, in one command each. It
refuses to decide anything about money or truth: what it prints was read from a chain, a daemon or an audit.
"""
