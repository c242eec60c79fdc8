"""Clusters by the hour: machines that are rented whole, and the evidence that they were.

What is here so far runs inside the rented machine: the sentinel, whose work shows that nobody else had its time. What that evidence
amounts to is judged in `audit/core/timelock.py`.
"""
