-- list: The tools of a thread, in order.
SELECT name, description, input_schema, defer_loading, namespace
FROM thread_dynamic_tools WHERE thread_id = :thread_id {of_host} ORDER BY position

-- any: One row if the thread has tools.
SELECT 1 FROM thread_dynamic_tools WHERE thread_id = :thread_id LIMIT 1

-- insert: One tool of a thread.
INSERT INTO thread_dynamic_tools
    (thread_id, position, name, description, input_schema, defer_loading, namespace)
VALUES (:thread_id, :position, :name, :description, :input_schema, :defer_loading, :namespace)

-- of_threads: The tools of some threads, in order.
SELECT {columns} FROM thread_dynamic_tools WHERE {among} ORDER BY thread_id, position
