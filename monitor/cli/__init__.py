"""The commands of operators: status, top, why, queues, dead letters, drain, schedules, health and doctor."""
