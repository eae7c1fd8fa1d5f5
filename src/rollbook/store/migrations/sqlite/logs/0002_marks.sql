-- An index of rows costs about what the row does, and answers no search in texts.  Marks say of
-- blocks of rows what they have; see store/log_marks.py.

DROP INDEX logs_by_time;
DROP INDEX logs_by_level;
DROP INDEX logs_by_thread;

-- What rows are marked by.  kind and name are a level, a thread ('' for none), or a place in a
-- program: then name is the module, '' for none, and file the file.
CREATE TABLE log_values (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    file TEXT NOT NULL,
    UNIQUE (kind, name, file)
) STRICT;

-- The blocks of 64 ids, id >> 6, that have rows with a value; rows has a bit for each, 1 << (id & 63).
CREATE TABLE log_marks (
    value INTEGER NOT NULL,
    block INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    PRIMARY KEY (value, block)
) STRICT, WITHOUT ROWID;

-- Which three characters follow each other in the messages of a block, whatever their case.
CREATE VIRTUAL TABLE log_texts USING fts5 (
    messages, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram'
);
-- Its parts are merged a little with each span; by itself, it would do much at once.
INSERT INTO log_texts (log_texts, rank) VALUES ('automerge', 0), ('crisismerge', 64), ('usermerge', 8);

-- The spans of 1,024 ids, id >> 10, that have marks: the times of their rows, and, as JSON, the
-- values that they were marked by.  Rows behind the last of them have no marks yet.
CREATE TABLE log_spans (
    span INTEGER PRIMARY KEY,
    min_ts INTEGER NOT NULL,
    max_ts INTEGER NOT NULL,
    marked_by TEXT NOT NULL
) STRICT;
