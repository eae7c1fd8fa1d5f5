-- count: Add to the size of a thread's rows.
INSERT INTO log_threads (thread_id, bytes) VALUES (:thread_id, :bytes)
ON CONFLICT (thread_id) DO UPDATE SET bytes = log_threads.bytes + excluded.bytes

-- forget_empty: Threads that have no rows left.
DELETE FROM log_threads WHERE bytes <= 0

-- too_large: One thread whose rows are larger than allowed.
SELECT thread_id FROM log_threads WHERE bytes > :bytes ORDER BY bytes DESC LIMIT 1

-- size: How many bytes a thread's rows take.
SELECT bytes FROM log_threads WHERE thread_id = :thread_id

-- oldest: The rows that were written first.
SELECT id FROM logs ORDER BY id LIMIT :n

-- sizes: Whose some rows are, and how large.
SELECT id, coalesce(thread_id, ''), {size} FROM logs WHERE {among} ORDER BY id

-- next_thread: The first of a range of thread ids.
SELECT thread_id FROM {table}
WHERE thread_id >= :low AND thread_id < :high AND thread_id <> '' ORDER BY thread_id LIMIT 1

-- begin_after: Have AUTOINCREMENT go on behind an id.
INSERT INTO sqlite_sequence (name, seq) VALUES ('logs', :id)

-- restore: Put a row back, unless it is there.
INSERT INTO logs (id, ts, ts_nanos, level, target, message, module_path, file, line, thread_id)
VALUES (:id, :ts, :ts_nanos, :level, :target, :message, :module_path, :file, :line, :thread_id)
ON CONFLICT (id) DO NOTHING RETURNING id

-- rows_after: The next rows behind an id.
SELECT id, {columns} FROM logs WHERE id > :id ORDER BY id LIMIT :n

-- last_id: The largest id that was ever given.
SELECT seq FROM sqlite_sequence WHERE name = 'logs'

-- copied: Up to which row a source was copied.
SELECT last_id, last_row FROM log_copies WHERE source = :source

-- set_copied: Remember that.
INSERT INTO log_copies (source, last_id, last_row) VALUES (:source, :last_id, :last_row)
ON CONFLICT (source) DO UPDATE SET last_id = excluded.last_id, last_row = excluded.last_row
