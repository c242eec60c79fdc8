"""`clusterai sim SCENARIO`: what cheating would come to under the deployed rules, played in virtual time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterai.cli import options, say
from clusterai.cli.failure import Exit, Failure

if TYPE_CHECKING:
    from clusterai.simulator import Report


def join(app: typer.Typer) -> None:
    app.command()(sim)


def sim(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO", help="A TOML file, as in examples/sim.", show_default=False)
    ],
    seeds: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Play so many seeds.", show_default="the scenario's")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the profits as SVG.", show_default=False)
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Simulate cheats, auditors and griefers who play for money, and compare their profit with honesty.

    The contracts' own rules decide; nothing touches a network. Exit code 6: a strategy wins more than honest work does.
    """
    from clusterai.cli.local.progress import Progress
    from clusterai.simulator import ScenarioRefused, decode_scenario, simulate
    from clusterai.simulator.core.plot import plot as drawn

    try:
        wanted = decode_scenario(scenario.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(
            f"can't read {scenario}", str(error), "examples/sim has scenarios", Exit.USAGE
        ) from error
    except ScenarioRefused as error:
        raise Failure(
            f"{scenario} isn't a scenario", str(error), "examples/sim has some that work", Exit.USAGE
        ) from error
    with Progress() as progress:

        def told(done: int, of: int) -> None:
            progress.show(f"{10 * (10 * done // of)} % of the markets are played")

        report = simulate(wanted, seeds, told)
    if plot is not None:
        plot.write_text(drawn(report), encoding="utf-8")
    if json:
        say.emit(report)
    else:
        _print(report)
    return Exit.OK if all(row.deterred for row in report.rows) else Exit.UNTRUE


def _print(report: "Report") -> None:
    say.table(
        ("strategy", "#profit", "#honest", "#extra", "#± 2 se", "#caught", "#after leases", "#delay", ""),
        [
            (
                row.strategy,
                f"{row.profit:.2f}",
                f"{row.honest:.2f}",
                f"{row.extra:+.3f}",
                f"{2 * row.error:.3f}",
                f"{row.caught:.2f}",
                "-" if row.until_caught is None else f"{row.until_caught:.1f}",
                "-" if row.delay_s is None else f"{row.delay_s:.0f} s",
                "[green]deterred[/]" if row.deterred else "[bold red]wins[/]",
            )
            for row in report.rows
        ],
    )
    say.tell("profits in prices of a lease, per operator")
    say.tell(
        f"{report.overhead:.2%} of the work repeated; {report.false_slashes} honest slashed; "
        f"{report.leases} leases, {report.seeds} seeds"
    )
