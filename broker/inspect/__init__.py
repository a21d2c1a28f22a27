"""Reading and clearing queues: depths, the search for a task, dead letters, purging and deleting."""
