-- spans_in_time: The next spans that may have rows of a time.
SELECT span FROM log_spans
WHERE span BETWEEN :low AND :high AND min_ts <= :to_ts AND max_ts >= :from_ts
ORDER BY span {order} LIMIT :n

-- levels: What rows of a level are marked by.
SELECT id FROM log_values WHERE kind = 'level' AND name = {level}

-- threads: What rows of some threads are marked by.
SELECT id FROM log_values
WHERE kind = 'thread' AND name IN (SELECT value FROM json_each(:threads)) AND file = ''

-- blocks_of_text: The next blocks with all of some texts.
SELECT rowid FROM log_texts
WHERE log_texts MATCH :texts AND rowid BETWEEN :low AND :high ORDER BY rowid {order} LIMIT :n

-- blocks_of_one: The next blocks with a mark.
SELECT block FROM log_marks
WHERE value = :id AND block BETWEEN :low AND :high ORDER BY block {order} LIMIT :n

-- blocks_of_any: The next blocks with any of several marks, from one to the next.
WITH RECURSIVE found (block) AS (
    SELECT :start
    UNION ALL
    SELECT (
        SELECT {best}((
            SELECT {best}(block) FROM log_marks
            WHERE log_marks.value = ids.value AND block {beyond} found.block
        )) FROM json_each(:ids) AS ids
    ) FROM found WHERE {end} {beyond} found.block
)
SELECT block FROM found WHERE block BETWEEN :low AND :high LIMIT :n

-- rows_of: The rows of some blocks that have any of several marks.
SELECT block, rows FROM log_marks
WHERE value IN (SELECT value FROM json_each(:ids))
AND block IN (SELECT value FROM json_each(:blocks))
