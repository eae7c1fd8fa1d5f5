-- Threads, their dynamic tools, and how far each rollout has been folded: all of it can be derived
-- again from the rollouts. Times are seconds since the epoch, UTC, except where a name ends in _ns.

CREATE TABLE threads (
    id TEXT NOT NULL PRIMARY KEY,
    host TEXT NOT NULL DEFAULT '',
    rollout_path TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    recency_at INTEGER NOT NULL,
    source TEXT NOT NULL,
    model_provider TEXT NOT NULL,
    cwd TEXT NOT NULL,
    title TEXT NOT NULL,
    preview TEXT NOT NULL DEFAULT '',
    name TEXT,
    sandbox_policy TEXT NOT NULL,
    approval_mode TEXT NOT NULL,
    tokens_used INTEGER NOT NULL DEFAULT 0,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    cached_input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    reasoning_output_tokens INTEGER NOT NULL DEFAULT 0,
    has_user_event INTEGER NOT NULL DEFAULT 0,
    archived INTEGER NOT NULL DEFAULT 0,
    archived_at INTEGER,
    git_sha TEXT,
    git_branch TEXT,
    git_origin_url TEXT,
    model TEXT,
    reasoning_effort TEXT,
    cli_version TEXT,
    originator TEXT,
    forked_from_id TEXT,
    parent_thread_id TEXT,
    agent_nickname TEXT,
    agent_role TEXT
) STRICT;

-- One index for each order of listing; has_user_event last, as nearly all threads have it.
CREATE INDEX threads_by_creation ON threads (archived, created_at DESC, id DESC, has_user_event);
CREATE INDEX threads_by_update ON threads (archived, updated_at DESC, id DESC, has_user_event);
CREATE INDEX threads_by_recency ON threads (archived, recency_at DESC, id DESC, has_user_event);

CREATE TABLE thread_dynamic_tools (
    thread_id TEXT NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    input_schema TEXT NOT NULL,
    defer_loading INTEGER NOT NULL DEFAULT 0,
    namespace TEXT,
    PRIMARY KEY (thread_id, position)
) STRICT, WITHOUT ROWID;

-- A rollout that could not be indexed has an error, and no thread unless its name says which.
CREATE TABLE rollout_files (
    path TEXT NOT NULL PRIMARY KEY,
    thread_id TEXT,
    compressed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    bytes_folded INTEGER NOT NULL DEFAULT 0,
    digest BLOB NOT NULL DEFAULT x'',
    fold_state TEXT NOT NULL DEFAULT '{}',
    parse_errors INTEGER NOT NULL DEFAULT 0,
    error TEXT
) STRICT;

CREATE INDEX rollout_files_by_thread ON rollout_files (thread_id);

-- At most one row: the last time that the whole home was compared with the index.
CREATE TABLE backfill_state (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    completed_at INTEGER NOT NULL,
    session_index_size INTEGER NOT NULL DEFAULT -1,
    session_index_mtime_ns INTEGER NOT NULL DEFAULT -1
) STRICT;
