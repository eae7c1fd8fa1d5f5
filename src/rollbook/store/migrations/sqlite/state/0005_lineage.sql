-- The threads that descend from another one, to be found from that: most descend from none.

CREATE INDEX threads_by_parent ON threads (parent_thread_id) WHERE parent_thread_id IS NOT NULL;
CREATE INDEX threads_by_fork ON threads (forked_from_id) WHERE forked_from_id IS NOT NULL;
