"""What anonymisation of text finds and misses, by kind, on labelled sentences; and what it takes away that wasn't personal.

    python -m bench.anonymise [--plain] [--strict] [--missed] [--json]      needs scripts/peers/anonymise.txt installed

`covered`: every character of a labelled span was removed, whatever it was called: that is what protects. `touched`: some of it was.
`wrongly`: removed spans that overlap nothing labelled. Two sets: sentences that Faker filled (`generated`), and sentences
that were written to be hard (`hard`); the second has one of each trouble, so its shares say which troubles there are, not how often.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from clusterai.vault.adapters.anonymising import Anonymiser, default_python

LABELLED = Path(__file__).parent / "labelled"


def measured(
    anonymiser: Anonymiser, name: str, *, plain: bool, strict: bool
) -> tuple[dict[str, Any], list[str]]:
    rows = [json.loads(line) for line in (LABELLED / f"{name}.jsonl").read_text().splitlines()]
    cleaned = anonymiser.texts([row["text"] for row in rows], plain=plain, strict=strict)
    total: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    touched: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    wrongly: Counter[str] = Counter()
    missed: list[str] = []
    for row, got in zip(rows, cleaned, strict=True):
        gone = {at for it in got.found for at in range(it.start, it.end)}
        for first, end, kind in row["spans"]:
            wanted = {at for at in range(first, end) if row["text"][at].isalnum()}
            total[kind] += 1
            covered[kind] += wanted <= gone
            touched[kind] += bool(wanted & gone)
            if not wanted <= gone:
                missed.append(f"{kind:8} {row['text'][first:end]!r} left as {got.text!r}")
        for it in got.found:
            removed[it.kind] += 1
            wrongly[it.kind] += not any(first < it.end and it.start < end for first, end, _ in row["spans"])
    kinds = {
        kind: {
            "spans": total[kind],
            "covered": round(covered[kind] / total[kind], 3),
            "touched": round(touched[kind] / total[kind], 3),
        }
        for kind in sorted(total)
    }
    all_, right = total.total(), covered.total()
    return {
        "sentences": len(rows),
        "covered": round(right / all_, 3),
        "touched": round(touched.total() / all_, 3),
        "removed": removed.total(),
        "precision": round(1 - wrongly.total() / removed.total(), 3),
        "kinds": kinds,
        "wrongly": {kind: f"{count} of {removed[kind]}" for kind, count in sorted(wrongly.items()) if count},
    }, missed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plain", action="store_true", help="Presidio's own recognizers alone")
    parser.add_argument("--strict", action="store_true", help="whatever looks like a name or a number goes")
    parser.add_argument("--missed", action="store_true", help="each span that was missed")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with Anonymiser(default_python()) as anonymiser:
        found = {
            name: measured(anonymiser, name, plain=args.plain, strict=args.strict)
            for name in ("generated", "hard")
        }
    if args.json:
        print(json.dumps({name: it for name, (it, _) in found.items()}, indent=2))
        return
    for name, (it, missed) in found.items():
        print(
            f"{name}: {it['sentences']} sentences, covered {it['covered']:.1%}, touched {it['touched']:.1%}, precision {it['precision']:.1%}"
        )
        for kind, row in it["kinds"].items():
            print(
                f"  {kind:8} {row['spans']:5} spans  covered {row['covered']:6.1%}  touched {row['touched']:6.1%}"
            )
        print(
            "  removed wrongly:",
            ", ".join(f"{kind} {said}" for kind, said in it["wrongly"].items()) or "nothing",
        )
        if args.missed:
            print("\n".join("    " + line for line in missed))


if __name__ == "__main__":
    main()
