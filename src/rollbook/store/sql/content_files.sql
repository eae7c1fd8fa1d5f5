-- all: Every rollout that was read for its content.
SELECT {columns} FROM content_files

-- of_threads: Those of some threads.
SELECT {columns} FROM content_files WHERE {threads}

-- by_ids: Some of them.
SELECT {columns} FROM content_files WHERE {ids}

-- insert: Remember a rollout.
INSERT INTO content_files ({stored}) VALUES ({values}) RETURNING id

-- update: Remember how far a rollout was read.
UPDATE content_files SET {assignments} WHERE id = :id

-- delete: Forget a rollout.
DELETE FROM content_files WHERE id = :id

-- state: What is wanted of the content, and how far it is.
SELECT next_chunk, scope, completed_at FROM content_state WHERE id = 1

-- set_scope: Have other texts indexed from now on.
UPDATE content_state SET scope = :scope WHERE id = 1

-- set_completed: When the whole home was last read.
UPDATE content_state SET completed_at = :completed_at WHERE id = 1
