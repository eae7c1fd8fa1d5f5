-- Up to which row the logs of another database were copied here, and what that row was, so that a copy
-- that breaks off goes on where it was.

CREATE TABLE log_copies (
    source TEXT NOT NULL PRIMARY KEY,
    last_id INTEGER NOT NULL,
    last_row TEXT NOT NULL
) STRICT, WITHOUT ROWID;
