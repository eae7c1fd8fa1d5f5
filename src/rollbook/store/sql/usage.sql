-- add: What a rollout has used, beside what it had before.
INSERT INTO usage (thread_id, bucket, model, file_id, {columns})
VALUES (:thread_id, :bucket, :model, :file_id, {values})
ON CONFLICT (thread_id, bucket, model, file_id) DO UPDATE SET {sums}

-- delete: What a rollout has used.
DELETE FROM usage WHERE file_id = :file_id

-- by_thread: What each thread has used in some time.
SELECT thread_id, bucket, model, {totals} FROM {used}
WHERE bucket >= :since AND bucket < :until GROUP BY thread_id, bucket, model

-- of_all: What all have used in some time.
SELECT '', bucket, model, {totals} FROM {used}
WHERE bucket >= :since AND bucket < :until GROUP BY bucket, model

-- of_threads: What each of some threads has used.
SELECT thread_id, bucket, model, {totals} FROM usage
WHERE {among} GROUP BY thread_id, bucket, model ORDER BY thread_id, bucket, model
