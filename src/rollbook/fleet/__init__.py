"""What many hosts share on one PostgreSQL: what a host sends of its home, and what is read of all."""
