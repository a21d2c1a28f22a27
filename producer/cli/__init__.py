"""The commands of producers: sending mails and files, tasks, batches, settings, the gateway, the scheduler."""
