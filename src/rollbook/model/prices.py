"""What tokens cost: the reader's own prices, as none that are built in would stay true."""

import os
import tomllib
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from rollbook.errors import UsageError
from rollbook.model.usage import Tokens

_MILLION = 1_000_000
_VARIABLE = "ROLLBOOK_PRICES"
_FORM = (
    'currency = "USD" and, for each model, [models."gpt-5*"] with input, cached_input and output'
)


class Price(msgspec.Struct, frozen=True):
    """What a million tokens cost; of input, those that came from a cache have a price of their own."""

    input: Decimal
    cached_input: Decimal
    output: Decimal


class Prices(msgspec.Struct, frozen=True):
    """Prices by model; names may have ``*``, and the first that fits counts."""

    currency: str
    models: dict[str, Price]

    def cost(self, model: str, tokens: Tokens) -> Decimal | None:
        """Say what some tokens cost; None for a model without a price."""
        for pattern, price in self.models.items():
            if fnmatchcase(model, pattern):
                fresh = max(0, tokens.input - tokens.cached_input)
                cost = fresh * price.input + tokens.cached_input * price.cached_input
                return (cost + tokens.output * price.output) / _MILLION
        return None


def find_prices(home: Path) -> Prices | None:
    """Read the prices that ``ROLLBOOK_PRICES`` names, else those of a home; None where it has none.

    Errors: UsageError for a file that can't be read.
    """
    named = os.environ.get(_VARIABLE)
    if named:
        return read_prices(Path(named))
    usual = home / "rollbook" / "prices.toml"
    return read_prices(usual) if usual.is_file() else None


def read_prices(path: Path) -> Prices:
    """Read a file of prices, in TOML.  Errors: UsageError for one that can't be read."""
    try:
        with path.open("rb") as file:
            content = tomllib.load(file, parse_float=Decimal)
        models = {name: _price(value) for name, value in content["models"].items()}
        return Prices(str(content.get("currency", "")), models)
    except OSError as error:
        raise UsageError(f"the prices {path} can't be read: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError, InvalidOperation) as error:
        raise UsageError(f"{path} has no prices: {error}", hint=f"it says {_FORM}") from error


def _price(value: dict[str, Any]) -> Price:
    given = {name: Decimal(value[name]) for name in ("input", "output")}
    return Price(cached_input=Decimal(value.get("cached_input", given["input"])), **given)
