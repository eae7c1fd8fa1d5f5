"""Which records belong into a rollout (behaviour.md 112 to 114)."""

from rollbook.rollout.lines import RolloutItem

# Those of the reference, and what later releases were seen to write. All other events are progress:
# deltas, approvals, output of running commands, warnings.
PERSISTED_EVENTS = frozenset(
    {
        "agent_message",
        "agent_reasoning",
        "agent_reasoning_raw_content",
        "context_compacted",
        "entered_review_mode",
        "exited_review_mode",
        "item_completed",
        "task_complete",
        "task_started",
        "thread_goal_updated",
        "thread_name_updated",
        "thread_rolled_back",
        "thread_settings_applied",
        "token_count",
        "turn_aborted",
        "turn_complete",
        "turn_started",
        "undo_completed",
        "user_message",
    }
)


def is_persisted(item: RolloutItem) -> bool:
    """Say whether a record is kept: all are but events that only tell of progress.

    Unlike the reference (113), response items of an unknown type are kept: they are what the model
    was given, and a release that doesn't know them passes over them.
    """
    return item.type != "event_msg" or item.kind in PERSISTED_EVENTS
