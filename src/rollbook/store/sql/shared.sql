-- hosts_of: The homes of a machine, and what they are called.
SELECT host, home FROM hosts WHERE machine = :machine ORDER BY host

-- is_taken: Whether something has a name.
SELECT 1 FROM hosts WHERE host = :host

-- register: Give a machine and home a name; one that is given on purpose goes over to it.
INSERT INTO hosts (host, machine, home) VALUES (:host, :machine, :home)
ON CONFLICT (host) DO UPDATE SET machine = excluded.machine, home = excluded.home
WHERE (hosts.machine, hosts.home) <> (excluded.machine, excluded.home)

-- analyze: Have the planner know what there is.
ANALYZE threads, thread_groups, thread_texts, thread_dynamic_tools, rollout_files, usage

-- forget_host: What a table has of a host.
DELETE FROM {table} WHERE host = :host

-- rename_host: What it has of a host, under another name.
UPDATE {table} SET host = :host WHERE host = :before

-- rename_log: Up to where its log was taken over.
UPDATE log_positions SET host = :host WHERE host = :before

-- take_turn: Wait until nobody else sends threads of a host; until the end of the transaction.
SELECT pg_advisory_xact_lock(:number)

-- versions: How often each host has changed.
SELECT host, version FROM hosts

-- set_delivered: When all of a host was last compared.
UPDATE hosts SET delivered_at = :at WHERE host = :host

-- delivered_at: The same, to be read.
SELECT delivered_at FROM hosts WHERE host = :host

-- changed: Count a change of a host, and tell those who listen.
UPDATE hosts SET version = version + 1 WHERE host = :host

-- notify: Tell those who listen.
SELECT pg_notify('rollbook', :message)

-- digests: What was sent of the threads of a host.
SELECT id, digest FROM threads WHERE host = :host

-- digests_of: The same, of some.
SELECT id, digest FROM threads WHERE host = :host AND {among}

-- groups: The groups of some combinations of values.
SELECT digest, id FROM thread_groups WHERE {among}

-- add_group: A combination that no thread had before.
INSERT INTO thread_groups (archived, has_user_event, source, model_provider, cwd, origin, digest)
VALUES (:archived, :has_user_event, :source, :model_provider, :cwd, :origin, :digest)
ON CONFLICT (digest) DO NOTHING

-- delete: What a table has of some threads of a host.
DELETE FROM {table} WHERE host = :host AND {among}

-- delete_files: Rollouts that are there no more.
DELETE FROM rollout_files WHERE host = :host AND {among} AND thread_id || ' ' || key NOT IN ({present})
RETURNING thread_id, key

-- delete_items: What was read of a rollout.
DELETE FROM transcript_items WHERE thread_id = :thread_id AND host = :host AND key = :key

-- rollouts_of: Those of some threads on a host.
SELECT {columns} FROM rollout_files WHERE host = :host AND {among}

-- set_read: How far a rollout was sent.
UPDATE rollout_files SET read_size = :read_size, read_mtime_ns = :read_mtime_ns, scope = :scope,
    bytes_read = :bytes_read, digest = :digest, base_thread_id = :base_thread_id, base_end = :base_end
WHERE thread_id = :thread_id AND host = :host AND key = :key

-- items_from: The items of a rollout from a byte on, up to another.
SELECT {columns} FROM transcript_items
WHERE thread_id = :thread_id AND host = :host AND key = :key
    AND byte_offset >= :start AND byte_offset < :end
ORDER BY byte_offset LIMIT :n

-- items_before: Those before a byte, the last first.
SELECT {columns} FROM transcript_items
WHERE thread_id = :thread_id AND host = :host AND key = :key AND byte_offset < :end
ORDER BY byte_offset DESC LIMIT :n

-- has_item: Whether an item begins at a byte.
SELECT 1 FROM transcript_items
WHERE thread_id = :thread_id AND host = :host AND key = :key AND byte_offset = :start

-- search: What may be found, the newest first.
SELECT time, thread_id, host, key, byte_offset, role, kind, name, text
FROM transcript_items WHERE words IS NOT NULL{conditions}
ORDER BY time DESC, thread_id DESC, host DESC, key DESC, byte_offset DESC LIMIT :n

-- lines_of_host: What a host has sent of its annotations.
SELECT thread_id, line FROM annotation_lines WHERE host = :host ORDER BY thread_id, number

-- log_position: Up to which row the log of a host was taken over, while nobody else does the same.
SELECT last_id, last_row FROM log_positions WHERE host = :host FOR UPDATE

-- begin_log: That none was.
INSERT INTO log_positions (host, last_id, last_row) VALUES (:host, 0, '') ON CONFLICT DO NOTHING

-- set_log_position: That more was.
UPDATE log_positions SET last_id = :last_id, last_row = :last_row WHERE host = :host

-- log_turn: Wait until nobody else is giving ids to log rows; until the end of the transaction.
SELECT pg_advisory_xact_lock(1380931688)

-- log_partitions: Days of logs that belong to whoever asks, and where each ends (epoch seconds).
SELECT quote_ident(c.relname), CAST(CAST(extract(epoch FROM
    to_date(right(c.relname, 8), 'YYYYMMDD') + interval '1 day') AS bigint) AS bigint)
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass('logs') AND c.relname ~ '^logs_[0-9]{8}$'
    AND pg_has_role(c.relowner, 'USAGE')

-- delete_logs_before: What is left before a time.
WITH gone AS (DELETE FROM logs WHERE ts < :ts RETURNING 1) SELECT count(*) FROM gone

-- delete_logs_of: The rows of some threads.
WITH gone AS (DELETE FROM logs WHERE {among} RETURNING 1) SELECT count(*) FROM gone

-- put_line: A line of what a person has said of a thread.
INSERT INTO annotation_lines (thread_id, host, number, line) VALUES (:thread_id, :host, :number, :line)

-- lines_of_thread: What was said of a thread, on all hosts.
SELECT line FROM annotation_lines WHERE thread_id = :thread_id ORDER BY host, number

-- forget_items: That nothing of the rollouts of a host was sent.
UPDATE rollout_files SET read_size = -1, bytes_read = 0 WHERE host = :host

-- log_rows_after: The next rows of a host behind an id.
SELECT id, {columns} FROM logs WHERE host = :host AND id > :id ORDER BY id LIMIT :n

-- log_hosts: The hosts that have rows: one look at the index for each.
WITH RECURSIVE found (host) AS (
    SELECT min(host) FROM logs
    UNION ALL
    SELECT (SELECT min(logs.host) FROM logs WHERE logs.host > found.host) FROM found
    WHERE found.host IS NOT NULL
)
SELECT host FROM found WHERE host IS NOT NULL
