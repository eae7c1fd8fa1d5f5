-- links: Which threads a thread names as those it descends from.
SELECT parent_thread_id, forked_from_id FROM threads WHERE id = :id

-- subagents: The threads whose parent is one of some.
SELECT id, parent_thread_id FROM threads WHERE {of_parents}

-- forks: The threads that were forked from one of some.
SELECT id, forked_from_id FROM threads WHERE {of_sources}
