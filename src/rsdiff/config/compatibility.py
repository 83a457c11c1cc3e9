"""Refuses combinations of settings that cannot work, before data or network is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rsdiff.config.typed import ConfigError

Offers = Mapping[str, Mapping[str, frozenset[str]]]
"""For each group ('dataset', 'degradation') the batch fields that each of its options gives."""


def require_fields(
    who: str, requires: frozenset[str], given: Mapping[str, frozenset[str]], choices: Mapping[str, str], offers: Callable[[], Offers]
) -> None:
    """Raise ConfigError if `who` ('model=refdiff') requires a batch field that nothing gives.

    requires  the batch fields
    given     by group ('dataset', 'degradation'), what its chosen option gives
    choices   option chosen by group, for the message
    offers    called only when something is missing: what the other options give
    """
    everything = frozenset[str]().union(*given.values())
    missing = sorted(requires - everything)
    if not missing:
        return
    chosen = [f"{group}={choices[group]}" for group in given]
    verb = "gives" if len(chosen) == 1 else "give"
    ways = {group: options for group, options in offers().items() if group in given}
    advice = "; ".join(_advice(field, ways) for field in missing)
    raise ConfigError(
        f"{who} needs {listed(missing)}, and {listed(chosen)} {verb} only {listed(sorted(everything)) or 'nothing'}: {advice}."
    )


def _advice(field: str, offers: Offers) -> str:
    names = {group: sorted(option for option, given in options.items() if field in given) for group, options in offers.items()}
    ways = [f"{group}={listed(options, 'or')}" for group, options in names.items() if options]
    return f"for {field} choose {' or '.join(ways)}" if ways else f"no option that is ready to use gives {field}"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return 'a', 'a and b' or 'a, b and c'."""
    return f"{', '.join(names[:-1])} {last} {names[-1]}" if len(names) > 1 else "".join(names)
