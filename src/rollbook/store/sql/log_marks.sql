-- has_marks: Whether a database has marks at all; Codex's own, and old ones, have none.
SELECT 1 FROM sqlite_schema WHERE name = 'log_spans'

-- last_span: The last span that has marks.
SELECT max(span) FROM log_spans

-- unmarked: The first span behind it that has rows, if it is complete: there are rows behind it.
SELECT id >> 10 FROM (SELECT id FROM logs WHERE id >= :first_id ORDER BY id LIMIT 1)
WHERE id >> 10 < (SELECT max(id) FROM logs) >> 10

-- rows: What some rows are marked by.
SELECT id, {level}, coalesce(thread_id, ''), coalesce(module_path, ''), coalesce(file, ''), ts, message
FROM logs WHERE id BETWEEN :first AND :last ORDER BY id

-- value: What rows with a value are marked by.
SELECT id FROM log_values WHERE kind = :kind AND name = :name AND file = :file

-- add_value: A value that no row has had.
INSERT INTO log_values (kind, name, file) VALUES (:kind, :name, :file) RETURNING id

-- mark_text: What the rows of a block say.
INSERT INTO log_texts (rowid, messages) VALUES (:block, :text)

-- merge_texts: Bring parts of the text index together, about so many pages of it.
INSERT INTO log_texts (log_texts, rank) VALUES ('merge', :pages)

-- add_span: A span that was marked.
INSERT INTO log_spans (span, min_ts, max_ts, marked_by) VALUES (:span, :min_ts, :max_ts, :values)

-- forget_marks: Those of a span.
DELETE FROM log_marks
WHERE value IN (SELECT value FROM json_each(:values))
AND block BETWEEN :first_block AND :last_block

-- forget_values: What a span was marked by, and none is any more.
DELETE FROM log_values
WHERE id IN (SELECT value FROM json_each(:values))
AND NOT EXISTS (SELECT 1 FROM log_marks WHERE value = log_values.id)

-- forget_text: What the rows of a block said.
DELETE FROM log_texts WHERE rowid = :block

-- forget_span: A span whose marks are gone.
DELETE FROM log_spans WHERE span = :span

-- forget_thread_before: Marks of a thread that has no rows before a block any more.
DELETE FROM log_marks WHERE block < :block AND value = (
    SELECT id FROM log_values WHERE kind = 'thread' AND name = :thread_id AND file = ''
)

-- empty: Spans that have no rows any more.
SELECT span FROM log_spans
WHERE NOT EXISTS (SELECT 1 FROM logs WHERE id BETWEEN span << 10 AND (span << 10) + 1023)
ORDER BY span LIMIT :n

-- marked_by: What a span is marked by, if it is.
SELECT marked_by FROM log_spans WHERE span = :span

-- is_empty: Whether there are no rows.
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM logs WHERE id BETWEEN :first AND :last)
