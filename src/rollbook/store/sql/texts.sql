-- next_chunk: The number of the next chunk.
SELECT next_chunk FROM content_state WHERE id = 1

-- set_next_chunk: Use up numbers of chunks.
UPDATE content_state SET next_chunk = :next_chunk WHERE id = 1

-- insert_messages: What is said in the messages of a chunk.
INSERT INTO text_messages (rowid, text) VALUES (:id, :text)

-- insert_tools: What tools are given and say in a chunk.
INSERT INTO text_tools (rowid, text) VALUES (:id, :text)

-- insert_trigrams: What is said in 32 chunks.
INSERT INTO text_trigrams (rowid, text) VALUES (:id, :text)

-- last_chunk: The last chunk of a rollout.
SELECT max(id) FROM text_chunks WHERE file_id = :file_id

-- chunks_of_file: The chunks of a rollout.
SELECT id FROM text_chunks WHERE file_id = :file_id

-- chunks_between: Some chunks by their numbers.
SELECT {columns} FROM text_chunks WHERE id BETWEEN :first AND :last ORDER BY id

-- chunks: Some chunks.
SELECT {columns} FROM text_chunks WHERE {ids}

-- delete_messages: What was said in the messages of a chunk.
DELETE FROM text_messages WHERE rowid = :id

-- delete_tools: What tools were given and said in a chunk.
DELETE FROM text_tools WHERE rowid = :id

-- delete_chunk: A chunk.
DELETE FROM text_chunks WHERE id = :id

-- delete_trigrams: What 32 chunks said, of which none is left.
DELETE FROM text_trigrams WHERE rowid = :id AND NOT EXISTS (
    SELECT 1 FROM text_chunks WHERE id BETWEEN :id << 5 AND (:id << 5) + 31
)

-- compact_messages: Bring the parts of an index together.
INSERT INTO text_messages (text_messages) VALUES ('optimize')

-- compact_tools: The same.
INSERT INTO text_tools (text_tools) VALUES ('optimize')

-- compact_trigrams: The same.
INSERT INTO text_trigrams (text_trigrams) VALUES ('optimize')

-- candidates: The chunks that may have what is looked for, newest first.
SELECT text_chunks.id, text_chunks.file_id, text_chunks.last_time
FROM {tables} WHERE {conditions}
ORDER BY text_chunks.last_time DESC, text_chunks.id DESC

-- in_messages: Those with words in messages.
SELECT rowid FROM text_messages WHERE text_messages MATCH :words

-- in_tools: Those with words that tools were given or said.
SELECT rowid FROM text_tools WHERE text_tools MATCH :words

-- with_trigrams: Those that are in 32 with all of some trigrams, or in the last, which have none yet.
(text_chunks.id >> 5 IN (SELECT rowid FROM text_trigrams WHERE text_trigrams MATCH :trigrams)
OR text_chunks.id >= (SELECT next_chunk >> 5 << 5 FROM content_state))
