-- What a second reading of the rollouts gives: an index of what was said.  See docs/search.md.

-- The rollouts, and how far each was read.  key is what stays the same when a rollout is moved: what
-- follows the time in its name.  state is JSON that only the readers understand; scope says what was
-- indexed of what was said: 0 nothing, 1 the messages, 2 tools as well.  Where the rollout was still
-- growing, its last chunk begins at open_from, and is written again.
CREATE TABLE content_files (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    thread_id TEXT NOT NULL,
    path TEXT NOT NULL,
    compressed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    bytes_read INTEGER NOT NULL,
    digest BLOB NOT NULL,
    scope INTEGER NOT NULL,
    open_from INTEGER NOT NULL,
    state TEXT NOT NULL
) STRICT;
CREATE INDEX content_files_by_thread ON content_files (thread_id);

-- Some messages that follow each other in a rollout, about 4 KiB of text: when the first and the last
-- were written (epoch seconds), and where, as msgpack: offset and length of each line in bytes.
CREATE TABLE text_chunks (
    id INTEGER PRIMARY KEY,
    file_id INTEGER NOT NULL REFERENCES content_files (id),
    first_time INTEGER NOT NULL,
    last_time INTEGER NOT NULL,
    places BLOB NOT NULL
) STRICT;
CREATE INDEX text_chunks_by_file ON text_chunks (file_id);

-- The words of each chunk, without order or count: of messages, and of what tools are given and say.
CREATE VIRTUAL TABLE text_messages USING fts5 (
    text, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);
CREATE VIRTUAL TABLE text_tools USING fts5 (
    text, content = '', contentless_delete = 1, detail = none, tokenize = 'ascii'
);

-- Which three characters follow each other in 32 chunks, id >> 5: what parts of words are found by.
-- Chunks from the first one on whose 32 are not complete have none yet.
CREATE VIRTUAL TABLE text_trigrams USING fts5 (
    text, content = '', contentless_delete = 1, detail = none, tokenize = 'trigram case_sensitive 1'
);

-- The one row says which chunk comes next, as numbers are not used twice; and which scope is wanted.
CREATE TABLE content_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next_chunk INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    completed_at INTEGER
) STRICT;
INSERT INTO content_state (id, next_chunk, scope, completed_at) VALUES (1, 32, 1, NULL);
