-- Structured logs, in a database of their own: they can't be derived from the rollouts again, and
-- must never hold up a thread's row. ts is seconds since the epoch, UTC; ts_nanos is the rest.

CREATE TABLE logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    ts INTEGER NOT NULL,
    ts_nanos INTEGER NOT NULL,
    level TEXT NOT NULL,
    target TEXT NOT NULL,
    message TEXT,
    module_path TEXT,
    file TEXT,
    line INTEGER,
    thread_id TEXT
) STRICT;

-- Each ends in the id that SQLite adds, so that the newest rows of one kind are read in order.
CREATE INDEX logs_by_time ON logs (ts);
CREATE INDEX logs_by_level
    ON logs (CASE upper(level) WHEN 'WARNING' THEN 'WARN' ELSE upper(level) END);
CREATE INDEX logs_by_thread ON logs (thread_id);

-- How many bytes each thread's rows take, about; the rows without a thread stand under ''.
CREATE TABLE log_threads (
    thread_id TEXT NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
