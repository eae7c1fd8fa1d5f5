-- next_chunk: The number of the next chunk.
SELECT next_chunk FROM content_state WHERE id = 1

-- set_next_chunk: Use up numbers of chunks.
UPDATE content_state SET next_chunk = :next_chunk WHERE id = 1

-- insert_words: What a chunk says.
INSERT INTO text_words (rowid, user, assistant, tool) VALUES (:id, :user, :assistant, :tool)

-- insert_trigrams: What sixteen chunks say.
INSERT INTO text_trigrams (rowid, text) VALUES (:id, :text)

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

-- delete_trigrams: What sixteen chunks said, of which none is left.
DELETE FROM text_trigrams WHERE rowid = :id AND NOT EXISTS (
    SELECT 1 FROM text_chunks WHERE id BETWEEN :id << 4 AND (:id << 4) + 15
)

-- merge_words: Bring the parts of the index of words together, about so many pages of it.
INSERT INTO text_words (text_words, rank) VALUES ('merge', :pages)

-- merge_trigrams: The same for the index of trigrams.
INSERT INTO text_trigrams (text_trigrams, rank) VALUES ('merge', :pages)

-- candidates: The chunks that may have what is looked for, newest first.
SELECT text_chunks.id, text_chunks.file_id, text_chunks.last_time
FROM {tables} WHERE {conditions}
ORDER BY text_chunks.last_time DESC, text_chunks.id DESC

-- with_words: Those with words.
text_words MATCH :words

-- with_trigrams: Those that are in sixteen with all of some trigrams, or in the last, which have none yet.
(text_chunks.id >> 4 IN (SELECT rowid FROM text_trigrams WHERE text_trigrams MATCH :trigrams)
OR text_chunks.id >= (SELECT next_chunk >> 4 << 4 FROM content_state))
