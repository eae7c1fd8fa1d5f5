-- The combinations of values that threads are listed by. There are few, so a list looks for those that
-- a filter lets through, and merges the threads of each; only lists that let many through walk along
-- all threads. Combinations that no thread has any more may stay.

CREATE TABLE thread_groups (
    id INTEGER NOT NULL PRIMARY KEY,
    archived INTEGER NOT NULL,
    has_user_event INTEGER NOT NULL,
    source TEXT NOT NULL,
    model_provider TEXT NOT NULL,
    cwd TEXT NOT NULL,
    UNIQUE (archived, has_user_event, source, model_provider, cwd)
) STRICT;

CREATE INDEX thread_groups_by_provider ON thread_groups (archived, has_user_event, model_provider);
CREATE INDEX thread_groups_by_cwd
    ON thread_groups (archived, has_user_event, cwd, model_provider, source);

ALTER TABLE threads ADD COLUMN group_id INTEGER NOT NULL DEFAULT 0;

INSERT INTO thread_groups (archived, has_user_event, source, model_provider, cwd)
SELECT DISTINCT archived, has_user_event, source, model_provider, cwd FROM threads;

UPDATE threads SET group_id = (
    SELECT thread_groups.id FROM thread_groups
    WHERE thread_groups.archived = threads.archived
        AND thread_groups.has_user_event = threads.has_user_event
        AND thread_groups.source = threads.source
        AND thread_groups.model_provider = threads.model_provider
        AND thread_groups.cwd = threads.cwd
);

-- One index for each order of listing; the last columns tell whether a row is to be looked at.
DROP INDEX threads_by_creation;
DROP INDEX threads_by_update;
DROP INDEX threads_by_recency;
CREATE INDEX threads_by_creation
    ON threads (archived, created_at DESC, id DESC, has_user_event, group_id);
CREATE INDEX threads_by_update
    ON threads (archived, updated_at DESC, id DESC, has_user_event, group_id);
CREATE INDEX threads_by_recency
    ON threads (archived, recency_at DESC, id DESC, has_user_event, group_id);
CREATE INDEX threads_of_group_by_creation ON threads (group_id, created_at DESC, id DESC);
CREATE INDEX threads_of_group_by_update ON threads (group_id, updated_at DESC, id DESC);
CREATE INDEX threads_of_group_by_recency ON threads (group_id, recency_at DESC, id DESC);

-- What the person wrote first, whole, where it is longer than what a list shows of it: a list must not
-- read through a megabyte of text to get at what stands behind it.
CREATE TABLE thread_texts (
    thread_id TEXT NOT NULL PRIMARY KEY REFERENCES threads (id) ON DELETE CASCADE,
    title TEXT NOT NULL,
    preview TEXT NOT NULL
) STRICT;

INSERT INTO thread_texts (thread_id, title, preview)
SELECT id, title, preview FROM threads WHERE length(title) > 300 OR length(preview) > 300;
UPDATE threads SET title = substr(title, 1, 300), preview = substr(preview, 1, 300)
WHERE length(title) > 300 OR length(preview) > 300;
