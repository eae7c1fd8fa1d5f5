-- How far a rollout was when records of it were last applied as they were written, and in which boot
-- of the machine: a power cut may keep the row of a thread and lose the end of its rollout.

ALTER TABLE rollout_files ADD COLUMN applied_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE rollout_files ADD COLUMN applied_boot TEXT NOT NULL DEFAULT '';
