-- What threads have used, by quarters of an hour (bucket: its beginning in epoch seconds) and model.
CREATE TABLE usage (
    thread_id TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    model TEXT NOT NULL,
    file_id INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    input INTEGER NOT NULL,
    cached_input INTEGER NOT NULL,
    output INTEGER NOT NULL,
    reasoning_output INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (thread_id, bucket, model, file_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_by_file ON usage (file_id);
