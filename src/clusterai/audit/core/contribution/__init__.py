"""Who is paid what for data: the worth of contributions on rows that nobody contributed.

Everything is whole numbers and drawn by a beacon, so an appraisal is a claim that anyone can check by making it again. The rooms' limits: a
worth is for one study's question and its held-out rows; what is new there earns, what is a copy doesn't, and what is
merely rare may earn little. See docs/explanation/contribution.md.

    whole.py        rows as whole numbers          copies.py     who had it first
    neighbours.py   KNN-Shapley, by rows           shares.py     values to wei
    banzhaf.py      by contributors, or by groups where updates are masked
    runs.py         by members of a federated run, whose groups' sums alone were seen
    appraisal.py    all of it, as one statement
"""

from clusterai.audit.core.contribution.appraisal import (
    Appraisal,
    Appraised,
    Contribution,
    NotTheStudys,
    Study,
    appraise,
)
from clusterai.audit.core.contribution.banzhaf import Estimate, banzhaf, from_groups
from clusterai.audit.core.contribution.copies import radius_of
from clusterai.audit.core.contribution.runs import Added, Seen, added
from clusterai.audit.core.contribution.shares import shares
from clusterai.audit.core.contribution.whole import Rows, rows_of

__all__ = [
    "Added",
    "Appraisal",
    "Appraised",
    "Contribution",
    "Estimate",
    "NotTheStudys",
    "Rows",
    "Seen",
    "Study",
    "added",
    "appraise",
    "banzhaf",
    "from_groups",
    "radius_of",
    "rows_of",
    "shares",
]
