-- all: Every rollout that was read for its content.
SELECT {columns} FROM content_files

-- signature: What differs, but for a chance in a billion, once any of them does; and how many have another scope.
SELECT count(*), coalesce(sum(size), 0), coalesce(sum(mtime_ns / 1000 % 1000000007), 0),
    coalesce(sum(scope <> (SELECT scope FROM content_state)), 0)
FROM content_files

-- of_threads: Those of some threads.
SELECT {columns} FROM content_files WHERE {threads}

-- by_ids: Some of them, each with its id.
SELECT {columns}, id FROM content_files WHERE {ids}

-- id_of: The id of a rollout.
SELECT id FROM content_files WHERE key = :key

-- upsert: Remember a rollout as it was read.
INSERT INTO content_files ({columns}) VALUES ({values})
ON CONFLICT (key) DO UPDATE SET {assignments} RETURNING id

-- delete: Forget a rollout.
DELETE FROM content_files WHERE id = :id

-- state: What is wanted of the content, and how far it is.
SELECT next_chunk, scope, completed_at FROM content_state WHERE id = 1

-- set_scope: Have other texts indexed from now on.
UPDATE content_state SET scope = :scope WHERE id = 1

-- set_completed: When the whole home was last read.
UPDATE content_state SET completed_at = :completed_at WHERE id = 1
