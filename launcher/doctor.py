"""``dlaunch doctor DIR``: reads the flight records of a job and says in plain words what happened."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import NoReturn

from launcher.console import show
from launcher.diagnosis import Diagnosis, Flight, FlightError, diagnose, read_directory


def main(arguments: Sequence[str]) -> int:
    """Runs ``dlaunch doctor``.

    Parameters
    ----------
    arguments : sequence of str
        The command line after ``doctor``.

    Returns
    -------
    int
        0 where records were read, whatever they say; 1 where none could be; 2 for a wrong call.
    """
    try:
        options = _parser().parse_args(arguments)
    except _UsageError as error:
        print(f"dlaunch doctor: {error}", file=sys.stderr)
        return 2
    try:
        flight = read_directory(options.directory, options.attempt)
    except FlightError as error:
        print(f"dlaunch doctor: {error}", file=sys.stderr)
        return 1
    diagnosis = diagnose(flight.records, flight.damaged_ranks)
    if options.json:
        show(json.dumps({**_source(flight), **diagnosis.as_dict()}, indent=2))
    else:
        show(text(flight, diagnosis))
    return 0


def text(flight: Flight, diagnosis: Diagnosis) -> str:
    """What is printed: where it is from, the verdict, the evidence, what to look at next."""
    number = f"{len(flight.records)} of {diagnosis.world_size} ranks"
    attempts = f", attempt {flight.attempt}" if flight.attempts != (0,) else ""
    others = [str(attempt) for attempt in flight.attempts if attempt != flight.attempt]
    if others:
        attempts += f" (others: {', '.join(others)}; --attempt N)"
    lines = [f"{flight.directory}: records of {number}{attempts}", "", str(diagnosis)]
    if flight.damaged:
        lines += ["", "Files that could not be read:", *(f"    {name}: {why}" for name, why in flight.damaged.items())]
    if flight.notes:
        lines += ["", "Files that were left out:", *(f"    {note}" for note in flight.notes)]
    return "\n".join(lines)


def _source(flight: Flight) -> dict[str, object]:
    return {
        "directory": flight.directory,
        "attempt": flight.attempt,
        "attempts": list(flight.attempts),
        "damaged": flight.damaged,
        "notes": list(flight.notes),
    }


class _UsageError(ValueError):
    pass


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _UsageError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dlaunch doctor",
        description="Reads the flight records that the ranks of a stuck or failed job wrote, and says what happened. Exit code: "
        "0 where records were read, 1 where none could be, 2 for a wrong call.",
        allow_abbrev=False,
    )
    parser.add_argument("directory", metavar="DIR", help="the flight directory (DISTTORCH_FLIGHT_DIR)")
    parser.add_argument(
        "--attempt", type=_count, metavar="N", help="which start of a job that was restarted, from 0 (default: the last)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0; got {text!r}")
    return int(text)
