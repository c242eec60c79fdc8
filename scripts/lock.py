"""Print a constraints file: every installed distribution with its version, and nothing of where it came from."""

from importlib.metadata import distributions

IGNORED = {"clusterai", "pip", "setuptools", "wheel"}


def main() -> None:
    pins = {
        distribution.metadata["Name"].lower().replace("_", "-"): distribution.version
        for distribution in distributions()
    }
    for name in sorted(pins.keys() - IGNORED):
        print(f"{name}=={pins[name]}")


main()
