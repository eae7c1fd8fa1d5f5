-- What only a person knows. The file of annotations beside the database says it; here is what its lines
-- come to, so that lists can be made by it. Times are seconds since the epoch, but named_at, which is in
-- milliseconds. A name that Codex has given later than the person is the one that counts: name is NULL
-- then.

CREATE TABLE annotations (
    thread_id TEXT NOT NULL PRIMARY KEY,
    name TEXT,
    named_at INTEGER NOT NULL DEFAULT 0,
    tags TEXT NOT NULL DEFAULT '[]',
    pinned INTEGER NOT NULL DEFAULT 0,
    deleted_through INTEGER
) STRICT;

CREATE INDEX pinned_threads ON annotations (thread_id) WHERE pinned = 1;

CREATE TABLE thread_tags (
    tag TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    PRIMARY KEY (tag, thread_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE relocations (
    position INTEGER NOT NULL PRIMARY KEY,
    old TEXT NOT NULL,
    new TEXT NOT NULL
) STRICT;

-- At most one row: what the files looked like when this was written.
CREATE TABLE annotation_state (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    session_index_size INTEGER NOT NULL,
    session_index_mtime_ns INTEGER NOT NULL
) STRICT;

-- Threads are also listed by the repository that they were in ('' for none). Most groups have one, and
-- stay what they are; only the threads of others get a new group.
CREATE TABLE listed_groups (
    id INTEGER NOT NULL PRIMARY KEY,
    archived INTEGER NOT NULL,
    has_user_event INTEGER NOT NULL,
    source TEXT NOT NULL,
    model_provider TEXT NOT NULL,
    cwd TEXT NOT NULL,
    origin TEXT NOT NULL,
    UNIQUE (archived, has_user_event, source, model_provider, cwd, origin)
) STRICT;

INSERT INTO listed_groups (id, archived, has_user_event, source, model_provider, cwd, origin)
SELECT id, archived, has_user_event, source, model_provider, cwd, coalesce(
    (SELECT git_origin_url FROM threads WHERE threads.group_id = thread_groups.id LIMIT 1), ''
)
FROM thread_groups;

INSERT INTO listed_groups (archived, has_user_event, source, model_provider, cwd, origin)
SELECT DISTINCT archived, has_user_event, source, model_provider, cwd, coalesce(git_origin_url, '')
FROM threads WHERE true ON CONFLICT DO NOTHING;

UPDATE threads SET group_id = (
    SELECT listed_groups.id FROM listed_groups
    WHERE listed_groups.archived = threads.archived
        AND listed_groups.has_user_event = threads.has_user_event
        AND listed_groups.source = threads.source
        AND listed_groups.model_provider = threads.model_provider
        AND listed_groups.cwd = threads.cwd
        AND listed_groups.origin = coalesce(threads.git_origin_url, '')
)
WHERE coalesce(git_origin_url, '') <> (
    SELECT listed_groups.origin FROM listed_groups WHERE listed_groups.id = threads.group_id
);

DROP TABLE thread_groups;
ALTER TABLE listed_groups RENAME TO thread_groups;
CREATE INDEX thread_groups_by_provider ON thread_groups (archived, has_user_event, model_provider);
CREATE INDEX thread_groups_by_cwd
    ON thread_groups (archived, has_user_event, cwd, model_provider, source);
