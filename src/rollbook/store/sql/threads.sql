-- get: One thread by id.
SELECT {columns} FROM threads WHERE id = :id

-- get_folded: The same, with what its fold remembers.
SELECT {columns}, fold_state FROM threads WHERE id = :id

-- exists: One row if the thread is known.
SELECT 1 FROM threads WHERE id = :id

-- ids_between: The ids of a range of texts, for shortened ids.
SELECT DISTINCT id FROM threads WHERE id >= :low AND id < :high ORDER BY id LIMIT :n

-- all_ids: The ids of all threads.
SELECT id FROM threads ORDER BY id

-- group: See to it that the combination of values that a thread is listed by is there.
INSERT INTO thread_groups (archived, has_user_event, source, model_provider, cwd, origin)
VALUES (:archived, :has_user_event, :source, :model_provider, :cwd, :origin) ON CONFLICT DO NOTHING

-- upsert: Insert a thread, or overwrite every column of it.
INSERT INTO threads ({columns}, archived, group_id)
VALUES ({values}, :archived, {group})
ON CONFLICT (id) DO UPDATE
SET {assignments}, archived = excluded.archived, group_id = excluded.group_id

-- upsert_folded: The same, with what its fold remembers.
INSERT INTO threads ({columns}, archived, group_id, fold_state)
VALUES ({values}, :archived, {group}, :fold_state)
ON CONFLICT (id) DO UPDATE
SET {assignments}, archived = excluded.archived, group_id = excluded.group_id,
    fold_state = excluded.fold_state

-- texts: What the person wrote first, whole.
SELECT title, preview FROM thread_texts WHERE thread_id = :id

-- keep_texts: Keep that whole.
INSERT INTO thread_texts (thread_id, title, preview) VALUES (:id, :title, :preview)
ON CONFLICT (thread_id) DO UPDATE SET title = excluded.title, preview = excluded.preview

-- forget_texts: It is short now.
DELETE FROM thread_texts WHERE thread_id = :id

-- delete: Remove a thread; its tools go with it.
DELETE FROM threads WHERE id = :id

-- rename: Set the name of a thread that differs from it.
UPDATE threads SET name = :name WHERE id = :id AND (name IS NULL OR name <> :name) RETURNING id

-- recency: The time of its last turn.
SELECT recency_at FROM threads WHERE id = :id

-- recorded_name: What the agent calls it.
SELECT name FROM threads WHERE id = :id

-- groups: What threads are listed by: how many there are of each, and when the last had its turn.
SELECT id, archived, has_user_event, cwd, origin,
    (SELECT count(*) FROM threads WHERE group_id = thread_groups.id),
    coalesce((SELECT max(recency_at) FROM threads WHERE group_id = thread_groups.id), 0)
FROM thread_groups

-- group_places: Where the threads of each group work.
SELECT id, cwd, origin FROM thread_groups

-- without_rollout_file: Threads of this home that no indexed rollout stands for.
SELECT id, rollout_path FROM threads
WHERE id IN (SELECT id FROM threads EXCEPT SELECT thread_id FROM rollout_files)
