-- state: What the files looked like when the annotations were last brought into the database.
SELECT size, mtime_ns, session_index_size, session_index_mtime_ns FROM annotation_state WHERE id = 1

-- set_state: Remember that.
INSERT INTO annotation_state (id, size, mtime_ns, session_index_size, session_index_mtime_ns)
VALUES (1, :size, :mtime_ns, :session_index_size, :session_index_mtime_ns)
ON CONFLICT (id) DO UPDATE SET
    size = excluded.size,
    mtime_ns = excluded.mtime_ns,
    session_index_size = excluded.session_index_size,
    session_index_mtime_ns = excluded.session_index_mtime_ns

-- all: What was said of each thread.
SELECT thread_id, name, named_at, tags, pinned, deleted_through FROM annotations

-- some: The same, of some threads.
SELECT thread_id, name, named_at, tags, pinned, deleted_through FROM annotations WHERE {among}

-- has_any: One row if anything was said of any thread that shows.
SELECT 1 FROM annotations WHERE name IS NOT NULL OR pinned = 1 OR tags <> '[]' LIMIT 1

-- deleted: Which of some threads were deleted, and up to which turn.
SELECT thread_id, deleted_through FROM annotations
WHERE deleted_through IS NOT NULL AND {among}

-- put: Remember what was said of a thread.
INSERT INTO annotations (thread_id, name, named_at, tags, pinned, deleted_through)
VALUES (:thread_id, :name, :named_at, :tags, :pinned, :deleted_through)
ON CONFLICT (thread_id) DO UPDATE SET
    name = excluded.name,
    named_at = excluded.named_at,
    tags = excluded.tags,
    pinned = excluded.pinned,
    deleted_through = excluded.deleted_through

-- remove: Nothing is said of a thread any more.
DELETE FROM annotations WHERE thread_id = :thread_id

-- add_tag: Find a thread by a tag.
INSERT INTO thread_tags (tag, thread_id) VALUES (:tag, :thread_id)

-- remove_tag: No longer.
DELETE FROM thread_tags WHERE tag = :tag AND thread_id = :thread_id

-- relocations: Which directories were moved, in that order.
SELECT old, new FROM relocations ORDER BY position

-- forget_relocations: None were.
DELETE FROM relocations

-- relocate: One was.
INSERT INTO relocations (position, old, new) VALUES (:position, :old, :new)
