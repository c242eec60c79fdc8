"""`python -m clusterai.sandbox`: what of the sandbox works on this machine, and the cure where it doesn't."""

import sys

from clusterai.sandbox.adapters.doctor import doctor


def main() -> None:
    for row in doctor():
        cure = f"\n{'':27}→ {row.cure}" if row.cure else ""
        sys.stdout.write(f"{row.state:7}{row.name:20}{row.found}{cure}\n")


if __name__ == "__main__":
    main()
