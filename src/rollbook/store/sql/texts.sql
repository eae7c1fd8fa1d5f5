-- next_chunk: The number of the next chunk.
SELECT next_chunk FROM content_state WHERE id = 1

-- set_next_chunk: Use up numbers of chunks.
UPDATE content_state SET next_chunk = :next_chunk WHERE id = 1

-- insert_words: What a chunk says.
INSERT INTO text_words (rowid, words) VALUES (:id, :words)

-- insert_trigrams: What 32 chunks say.
INSERT INTO text_trigrams (rowid, runs) VALUES (:id, :runs)

-- last_chunk: The last chunk of a rollout.
SELECT max(id) FROM text_chunks WHERE file_id = :file_id

-- chunks_of_file: The chunks of a rollout.
SELECT id FROM text_chunks WHERE file_id = :file_id

-- chunks_between: Some chunks by their numbers.
SELECT {columns} FROM text_chunks WHERE id BETWEEN :first AND :last ORDER BY id

-- chunks: Some chunks.
SELECT {columns} FROM text_chunks WHERE {ids}

-- delete_words: What a chunk said.
DELETE FROM text_words WHERE rowid = :id

-- delete_chunk: A chunk.
DELETE FROM text_chunks WHERE id = :id

-- delete_trigrams: What 32 chunks said, of which none is left.
DELETE FROM text_trigrams WHERE rowid = :id AND NOT EXISTS (
    SELECT 1 FROM text_chunks WHERE id BETWEEN :id << 5 AND (:id << 5) + 31
)

-- compact_words: Bring the parts of the index of words together.
INSERT INTO text_words (text_words) VALUES ('optimize')

-- compact_trigrams: The same for the index of trigrams.
INSERT INTO text_trigrams (text_trigrams) VALUES ('optimize')

-- candidates: The chunks that may have what is looked for, newest first.
SELECT text_chunks.id, text_chunks.file_id, text_chunks.last_time
FROM {tables} WHERE {conditions}
ORDER BY text_chunks.last_time DESC, text_chunks.id DESC

-- with_words: Those with words.
text_words MATCH :words

-- with_trigrams: Those that are in 32 with all of some trigrams, or in the last, which have none yet.
(text_chunks.id >> 5 IN (SELECT rowid FROM text_trigrams WHERE text_trigrams MATCH :trigrams)
OR text_chunks.id >= (SELECT next_chunk >> 5 << 5 FROM content_state))
