-- all: Every rollout that was read, and how far.
SELECT {columns} FROM rollout_files

-- get: One rollout.
SELECT {columns} FROM rollout_files WHERE path = :path

-- states: What each rollout looked like when it was read, and whether that is all there is to say.
SELECT path, size, mtime_ns, inode, compressed, error IS NULL AND applied_size <= bytes_folded
FROM rollout_files WHERE path > :after ORDER BY path LIMIT :n

-- located: Which rollouts there are, of those that could be read.
SELECT path, thread_id, compressed, size, mtime_ns, inode FROM rollout_files
WHERE error IS NULL AND thread_id IS NOT NULL

-- signature: What differs, but for a chance in a billion, once any of those rollouts does.
SELECT count(*), coalesce(sum(size), 0), coalesce(sum(mtime_ns / 1000 % 1000000007), 0) FROM rollout_files
WHERE error IS NULL AND thread_id IS NOT NULL

-- forgotten: The rollouts of threads that are no longer there.
SELECT path FROM rollout_files
WHERE thread_id IN (SELECT thread_id FROM rollout_files EXCEPT SELECT id FROM threads)

-- ignored: The rollouts of threads that were deleted.
SELECT path FROM rollout_files WHERE thread_id IS NULL AND error IS NULL

-- upsert: Remember a rollout as it was read.
INSERT INTO rollout_files ({columns}) VALUES ({values})
ON CONFLICT (path) DO UPDATE SET {assignments}

-- delete: Forget a rollout.
DELETE FROM rollout_files WHERE path = :path

-- backfill_state: The last time that the whole home was compared with the index.
SELECT completed_at, session_index_size, session_index_mtime_ns FROM backfill_state WHERE id = 1

-- set_backfill_state: Remember such a time.
INSERT INTO backfill_state (id, completed_at, session_index_size, session_index_mtime_ns)
VALUES (1, :completed_at, :session_index_size, :session_index_mtime_ns)
ON CONFLICT (id) DO UPDATE SET
    completed_at = excluded.completed_at,
    session_index_size = excluded.session_index_size,
    session_index_mtime_ns = excluded.session_index_mtime_ns

-- set_applied: Remember how large a rollout was when records of it were applied.
UPDATE rollout_files SET applied_size = :size, applied_boot = :boot WHERE path = :path
