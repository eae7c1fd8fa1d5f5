"""Bring a database to the schema that this release needs.

Migrations are numbered files, applied in one transaction, each recorded with the checksum of its
exact bytes and never edited once released (behaviour.md 3).
"""

import hashlib
from functools import cache
from pathlib import Path

import msgspec

from rollbook.errors import DatabaseDamagedError, DatabaseVersionError
from rollbook.store.engine import Schema, Transaction

_DIRECTORY = Path(__file__).with_name("migrations")
_HISTORY_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL
)"""


class Migration(msgspec.Struct, frozen=True):
    """One numbered file."""

    version: int
    name: str
    sql: str
    checksum: str


@cache
def load_migrations(engine_name: str, schema_name: str) -> list[Migration]:
    """Read an engine's migrations of one schema, in order."""
    migrations = []
    for file in sorted((_DIRECTORY / engine_name / schema_name).glob("*.sql")):
        content = file.read_bytes()
        number, _, name = file.stem.partition("_")
        checksum = hashlib.sha256(content).hexdigest()
        migrations.append(Migration(int(number), name, content.decode(), checksum))
    return migrations


def migrate(tx: Transaction, migrations: list[Migration], location: object, schema: Schema) -> None:
    """Apply what is missing, inside the caller's transaction.

    Errors: DatabaseVersionError for a database of a newer release, DatabaseDamagedError where a
    recorded checksum differs; neither changes anything.
    """
    tx.execute(_HISTORY_TABLE)
    for migration in missing(read_applied(tx), migrations, location, schema):
        tx.script(migration.sql)
        tx.execute(
            "INSERT INTO schema_migrations (version, name, checksum)"
            " VALUES (:version, :name, :checksum)",
            {
                "version": migration.version,
                "name": migration.name,
                "checksum": migration.checksum,
            },
        )


def read_applied(tx: Transaction) -> list[tuple[int, str]]:
    """Read version and checksum of the migrations that a database has had."""
    rows = tx.query("SELECT version, checksum FROM schema_migrations ORDER BY version")
    return [(version, checksum) for version, checksum in rows]


def missing(
    applied: list[tuple[int, str]],
    migrations: list[Migration],
    location: object,
    schema: Schema,
) -> list[Migration]:
    """Find the migrations that a database has not had, of which ``applied`` was read before.

    Errors: as :func:`migrate`.
    """
    known = {migration.version: migration for migration in migrations}
    for version, checksum in applied:
        if version > max(known):
            raise DatabaseVersionError(
                f"the database {location} was written by a newer release of Rollbook"
                f" (schema {version}, this release knows up to {max(known)})",
                hint="upgrade Rollbook, or use another database with --db",
            )
        if version not in known or checksum != known[version].checksum:
            raise DatabaseDamagedError(
                f"the database {location} has another schema {version} than this release",
                reason="another schema",
                hint=schema.damage_hint,
            )
    done = {version for version, _ in applied}
    return [migration for migration in migrations if migration.version not in done]
