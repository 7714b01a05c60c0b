"""Keys in a SQL database, for several proxies whose keys are managed while they run.

SQLAlchemy, so that any database will do that it has a driver for: `sqlite:///keys.db` needs none,
`postgresql+psycopg://…` its own. The extra `keys`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import msgspec
import sqlalchemy as sql

from proxy.keys.base import Key, KeysUnavailable, the_one, until

_KEYS = sql.Table(
    "headrace_keys",
    sql.MetaData(),
    sql.Column("hash", sql.String(71), primary_key=True),
    sql.Column("prefix", sql.String(32), nullable=False),
    sql.Column("tenant", sql.String(255), nullable=False),
    sql.Column("name", sql.String(255), nullable=False),
    sql.Column("admin", sql.Boolean, nullable=False),
    sql.Column("domains", sql.JSON, nullable=False),
    sql.Column("models", sql.JSON, nullable=False),
    sql.Column("expires", sql.DateTime(timezone=True)),
)

_COLUMNS = [column.name for column in _KEYS.columns]


class SqlKeys:
    """Reads and writes the table `headrace_keys`, which is made when it is missing."""

    def __init__(self, url: str) -> None:
        """Raises KeysUnavailable for a URL that cannot be used; connects to nothing yet."""
        try:
            self._engine = sql.create_engine(url, pool_pre_ping=True)
        except (sql.exc.ArgumentError, sql.exc.NoSuchModuleError, ImportError) as error:
            raise KeysUnavailable(f"$.auth.database: {error}") from error

    def read(self) -> list[Key]:
        """See KeyStore."""
        with self._connected() as connection:
            return [_key(row) for row in connection.execute(sql.select(_KEYS)).mappings()]

    def add(self, key: Key) -> None:
        """See KeyStore."""
        row = {name: getattr(key, name) for name in _COLUMNS}
        with self._connected() as connection:
            connection.execute(sql.insert(_KEYS).values(**row))

    def expire(self, prefix: str, at: datetime) -> Key:
        """See KeyStore."""
        ended = until(the_one(self.read(), prefix), at)
        with self._connected() as connection:
            this = sql.update(_KEYS).where(_KEYS.c.hash == ended.hash)
            connection.execute(this.values(expires=ended.expires))
        return ended

    @contextmanager
    def _connected(self) -> Iterator[sql.Connection]:
        try:
            with self._engine.begin() as connection:
                connection.execute(sql.schema.CreateTable(_KEYS, if_not_exists=True))
                yield connection
        except sql.exc.SQLAlchemyError as error:
            # Not the error's own text: it holds the statement, and may hold the URL's password.
            raise KeysUnavailable(
                f"the database of keys failed ({type(error).__name__}); see auth.database"
            ) from error


def _key(row: sql.RowMapping) -> Key:
    expires = row["expires"]
    kept = {str(name): value for name, value in row.items()}
    # SQLite keeps no time zone; what we wrote was UTC.
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return msgspec.convert({**kept, "expires": expires}, Key)
