-- What the fold of a thread remembers beside the row, so that records which a running agent applies
-- batch by batch give what the rollout gives as a whole. JSON that only the fold understands.

ALTER TABLE threads ADD COLUMN fold_state TEXT NOT NULL DEFAULT '{}';
